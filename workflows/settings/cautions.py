"""What a run is warned of before it costs anything: lengths, repetition, held-out text and rows that are unusual."""

from collections.abc import Sequence

from infra.console import counted, human
from pipelines.store.format import TokenStore
from workflows.settings.budget import MANY_STEPS, Budget

_FEW_STEPS = 20  # fewer are a trial of the machinery, or a mistake about the size of a step
_MANY_EPOCHS = 40  # from about here on, reading a text once more teaches nothing
_MUCH_HELD_OUT = 0.1  # share of all tokens
_POOR_FILL = 0.7  # of rows, once they are laid out; with segments well below the width it is above 0.9


def cautions(budget: Budget, store: TokenStore | None, *, keep_at_tokens: Sequence[int] = ()) -> list[str]:
    """A sentence each. store: None where it is not prepared yet; keep_at_tokens: the setting of the recipe."""
    found = []
    if budget.steps < _FEW_STEPS:
        teach = "teaches" if budget.steps == 1 else "teach"
        found.append(
            f"{counted(budget.steps, 'step')} of {human(budget.step_tokens)} tokens {teach} the model next to nothing: "
            "give a larger --train.tokens or a smaller --train.batch_tokens"
        )
    if budget.epochs > _MANY_EPOCHS and budget.steps < MANY_STEPS and not (store and store.parts):
        found.append(
            f"the run reads its text {budget.epochs:,.0f} times, and learns little new after about {_MANY_EPOCHS}: "
            "give more text, or a smaller --train.tokens"
        )
    if beyond := [tokens for tokens in keep_at_tokens if budget.first_step(tokens) > budget.steps]:
        found.append(
            f"the run ends at {human(budget.tokens)} tokens, before {human(beyond[0])} of --train.keep_at_tokens: no "
            "checkpoint is kept there"
        )
    return found + (_of_store(store) if store else [])


def _of_store(store: TokenStore) -> list[str]:
    found, every = [], sum(split.tokens for split in store.splits)
    held_out = store.validation.tokens / max(every, 1)
    if held_out > _MUCH_HELD_OUT:
        found.append(
            f"validation holds {human(store.validation.tokens)} of {human(every)} tokens, {held_out:.0%}: a smaller "
            "--data.validation_tokens leaves more to train on"
        )
    fill = store.train.expected_fill
    if store.train.rows and fill < _POOR_FILL:
        found.append(
            f"rows are {fill:.0%} full, and the rest of each step is spent on padding: --data.row_width="
            f"{4 * store.manifest.sequence_length} may suit this text better than {store.manifest.row_width}"
        )
    return found
