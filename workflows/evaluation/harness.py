"""A model of ours as a model class of lm-evaluation-harness, which then asks it any task of its own.

    from lm_eval import simple_evaluate
    from workflows.evaluation.harness import HarnessModel

    simple_evaluate(HarnessModel("runs/a"), tasks=["piqa"])

loglikelihood           a continuation fills a mask behind its context, and the end of the blank does not count, as in
                        multiple choice here; without a context it is a whole text, read from left to right to its end,
                        as sentences of BLiMP are
loglikelihood_rolling   a text of any length is read from left to right in windows, as the task `perplexity` does
generate_until          `[gMASK]` behind the context is filled up to the end of the blank, or to a text that ends it

Continuations of one context share it: it is read once. A context that is too long loses its beginning. Raises
ValueError for a continuation without tokens or longer than the model. Needs the extra `eval`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from glm_model import Decoding, fill_batch, layout
from glm_model.classifier import Classifier
from glm_model.generation.scoring import score_tokens
from infra.errors import UserError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Question, ask
from pipelines.questions.task import Item, Task
from workflows.answering.answers import answer, batches
from workflows.evaluation.models import find_models

try:
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    raise UserError(
        f"lm-evaluation-harness cannot be loaded: {error}", try_="pip install -c constraints.txt -e '.[eval]'"
    ) from error

_AT_ONCE = 32  # contexts that are continued side by side
_MOST_WRITTEN = 256  # tokens, where a task does not say: the harness's own default
_WHOLE_TEXT, _CONTINUED = Pattern("{gmask}"), Pattern("{~before}{gmask}")


class HarnessModel(LM):
    """place: a run, a model folder, or a checkpoint such as runs/a@step=2000. pattern: how a continuation is asked;
    `before` is its context. Raises UserError and DataError where there is no such model.
    """

    def __init__(self, place: str, *, pattern: str = "{~before}{mask}", use_gpu: bool = False) -> None:
        super().__init__()
        found = find_models([place])
        if len(found) > 1:
            raise UserError(f"{place} names {len(found)} models", try_="name one")
        model = found[0].load()
        if isinstance(model, Classifier):
            raise UserError(f"{place} answers by a classification head", try_="give a model that writes")
        self.model = model.to("cuda") if use_gpu else model
        self.tokenizer = found[0].load_tokenizer()
        self.pattern = Pattern(pattern)
        self._perplexity = tasks.define(TaskConfig(name="perplexity"), list)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log p of the continuation, whether it is what would be written) for each (context, continuation)."""
        pairs: list[tuple[str, str]] = [request.args for request in requests]
        sharing: dict[tuple[str, str], dict[str, None]] = {}
        for context, continuation in pairs:
            sharing.setdefault((context, "" if context else continuation), {})[continuation] = None
        questions = [
            self._question(str(number), context, tuple(continuations))
            for number, ((context, _), continuations) in enumerate(sharing.items())
        ]
        found: dict[tuple[str, str], tuple[float, bool]] = {}
        for is_whole in {one.count_end for one in questions}:
            for batch in batches(one for one in questions if one.count_end == is_whole):
                found |= self._scores(batch, count_end=is_whole)
        return [found[pair] for pair in pairs]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of each whole text."""
        task, found = self._perplexity, list[float]()
        for number, request in enumerate(requests):
            (text,) = request.args
            item = Item(str(number), {"before": ""}, candidates=(text,))
            question = ask(task, task.pattern(1), item, self.tokenizer, positions=self.model.config.positions)
            found += answer(self.model, self.tokenizer, [question])[0].logprobs
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What is written behind each context, without the text that ends it. Options: until, max_gen_toks, do_sample,
        temperature, top_k, top_p; others change nothing.
        """
        alike: dict[Decoding, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(self._decoding(request.args[1]), []).append(number)
        found = [""] * len(requests)
        for decoding, numbers in alike.items():
            for first in range(0, len(numbers), _AT_ONCE):
                some = numbers[first : first + _AT_ONCE]
                texts = [self._to_continue(requests[number].args[0]) for number in some]
                written = fill_batch(self.model, self.tokenizer, texts, decoding)
                for number, (filled,) in zip(some, written, strict=True):
                    found[number] = _until(filled.blanks[0].text, requests[number].args[1].get("until") or [])
        return found

    def _question(self, number: str, context: str, continuations: tuple[str, ...]) -> Question:
        pattern = self.pattern if context else _WHOLE_TEXT
        task = Task("harness", 1, "choose", (pattern,), item=_no_rows, count_end=not context)
        item = Item(number, {"before": context}, candidates=continuations)
        return ask(task, pattern, item, self.tokenizer, positions=self.model.config.positions)

    def _scores(self, batch: Sequence[Question], *, count_end: bool) -> dict[tuple[str, str], tuple[float, bool]]:
        special = self.tokenizer.special
        scores = score_tokens(
            self.model,
            [question.prompt for question in batch],
            [[[tokens] for tokens in question.candidates] for question in batch],
            marks=layout.Marks(special.sop, special.eop, special.pad),
            vocab_size=self.tokenizer.vocab_size,
            count_end=count_end,
        )
        return {
            (question.item.fields["before"], continuation): (score.logprob, score.greedy)
            for question, several in zip(batch, scores, strict=True)
            for continuation, score in zip(question.answers, several, strict=True)
        }

    def _decoding(self, options: Mapping[str, Any]) -> Decoding:
        most = min(options.get("max_gen_toks") or _MOST_WRITTEN, self.model.config.positions - 1)
        if not options.get("do_sample") or options.get("temperature") == 0:
            return Decoding(max_tokens=most)
        given = {name: options[name] for name in ("temperature", "top_k", "top_p") if options.get(name)}
        return Decoding(max_tokens=most, **{"temperature": 1.0, **given})

    def _to_continue(self, context: str) -> str:
        """The context, its beginning cut where it is too long, and what is to be filled."""

        def fits(text: str) -> bool:
            return len(self.tokenizer.encode_prompt(text)) < self.model.config.positions  # [CLS] comes first

        text = _CONTINUED.shorten({"before": context}, fits)
        assert text is not None, "a mask alone fits"
        return text


def _until(text: str, ends: str | Sequence[str]) -> str:
    """A text up to the first of those that end it."""
    for end in [ends] if isinstance(ends, str) else ends:
        if end:
            text = text.partition(end)[0]
    return text


def _no_rows(row: Any) -> Item:
    raise ValueError("the harness reads its items itself")
