"""Which kind of prediction is meant, and whether the model can do it."""

from dataclasses import replace

from glm_model.decoding import Decoding
from glm_model.tokenizer import Tokenizer
from infra.errors import UserError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.pattern import Pattern
from pipelines.questions.task import Task
from workflows.answering.writing import decoding_of
from workflows.evaluation.models import Model
from workflows.evaluation.tasks import taught_task
from workflows.prediction.config import KindName, PredictConfig
from workflows.prediction.embedding import embed
from workflows.prediction.filling import fill, fill_by_task
from workflows.prediction.kind import Kind
from workflows.prediction.labels import choose, choose_by_task, classify
from workflows.prediction.scoring import score_target, score_text

# Settings that say what is asked, and the kinds that read them.
_READ_BY: dict[str, tuple[KindName, ...]] = {
    "words": ("classify",),
    "candidates": ("choose",),
    "target": ("score",),
    "decoding": ("fill",),
    "order": ("fill",),
}
_WRITES = ("write", "generate")  # kinds of tasks whose answers are texts
# Settings that a task of a fine-tuned model has itself.
_OF_THE_TASK = ("text", "pattern", "words", "candidates", "target")


def find_kind(options: PredictConfig, model: Model) -> Kind:
    """Raises UserError for settings that the kind does not have, and for a model that cannot do it."""
    task = taught_task(model) if model.asked else None
    name = options.kind or _usual(model, task)
    given = {one for one in {*_READ_BY, *_OF_THE_TASK} if getattr(options, one) != getattr(PredictConfig(), one)}
    if unread := [one for one in _READ_BY if one in given and name not in _READ_BY[one]]:
        raise UserError(
            f"--{unread[0]} does nothing with --kind={name}",
            why=f"it is for {' and '.join(_READ_BY[unread[0]])}",
            try_=f"leave it out, or use --kind={_READ_BY[unread[0]][0]}",
        )
    if options.pattern is not None and "text" in given:
        raise UserError(
            "--text does nothing with --pattern",
            why="a pattern names its columns itself",
            try_=f"leave --text out, or put {{{options.text}~}} into the pattern",
        )
    if model.has_head and name not in ("classify", "embed"):
        raise UserError(
            f"{model.name} cannot {name}",
            why="it was fine-tuned with a classification head, which reads a text and writes nothing",
            try_=f"give the model that it began with: {model.started_from or 'its task.json says which'}",
        )
    own = given.intersection(_OF_THE_TASK)
    pattern = _pattern(options, has_mask=_has_mask(options, name))
    decoding = check_decoding(options, model.positions(), None if own else task) if name == "fill" else Decoding()
    match name:
        case "classify":
            return classify(_labelled(options, model, task, own, pattern), options.overlong)
        case "choose":
            return _choosing(options, model, None if own else task, pattern)
        case "score" if options.target:
            return score_target(options.target, pattern, options.text, options.overlong)
        case "score":
            return score_text(pattern, options.text, options.overlong)
        case "fill" if task and task.kind in _WRITES and not own:
            return fill_by_task(_one_item(task), options.overlong, decoding, options.order)
        case "fill":
            return fill(pattern, options.text, options.overlong, decoding, options.order)
        case "embed":
            return embed(pattern, options.text, model.width(), options.overlong)


def check_masks(kind: Kind, model: Model, tokenizer: Tokenizer) -> None:
    """Raises UserError for a model that cannot be shown where it writes."""
    special = tokenizer.special
    if kind.needs_mask and max(special.mask, special.smask, special.gmask) < 0:
        raise UserError(
            f"{model.name} cannot {kind.name}: its tokenizer has no mask",
            why="it marks where the model writes, chooses or scores",
            try_="give a model that was trained to fill blanks, or use --kind=embed",
        )


def check_decoding(options: PredictConfig, positions: int, task: Task | None) -> Decoding:
    """How masks are filled: as a task that generates was taught, where nothing else is given. positions: of the model.

    Raises UserError for what no text can be filled by.
    """
    decoding = options.decoding
    if task and task.generation and decoding == Decoding():
        decoding = decoding_of(task.generation.within(positions - 1))
    elif decoding.max_tokens == Decoding().max_tokens:  # where nothing is given, what fits
        decoding = replace(decoding, max_tokens=min(decoding.max_tokens, positions - 1))
    if decoding.samples > 1:
        raise UserError(
            f"--decoding.samples={decoding.samples} does not fit a table",
            why="each row has one filled text",
            try_="leave it out; generate.py writes several",
        )
    if options.order not in ("left_to_right", "right_to_left"):
        raise UserError(f"--order={options.order} is unknown", try_="use left_to_right or right_to_left")
    if decoding.max_tokens >= positions:
        raise UserError(
            f"--decoding.max_tokens={decoding.max_tokens} is too many",
            why=f"the model has {positions:,} positions",
            try_=f"--decoding.max_tokens={positions - 1} or fewer",
        )
    return decoding


def _usual(model: Model, task: Task | None) -> KindName:
    """What a model was fine-tuned for. Raises UserError where nothing tells."""
    if task is None:
        raise UserError(
            "--kind is missing",
            why=f"{model.name} was not fine-tuned, so nothing says what it does with a row",
            try_="--kind=fill, score, embed, choose or classify",
        )
    if task.kind in _WRITES:
        return "fill"
    return "classify" if task.labels else "choose"


def _has_mask(options: PredictConfig, name: KindName) -> bool:
    """Whether the pattern of a kind has a mask."""
    return name in ("classify", "choose", "fill") or (name == "score" and options.target is not None)


def _pattern(options: PredictConfig, *, has_mask: bool) -> Pattern | None:
    if options.pattern is None:
        return None
    try:
        pattern = Pattern(options.pattern)
    except ValueError as error:
        raise UserError(f"--pattern: {error}") from error
    if pattern.has_mask != has_mask:
        raise UserError(
            f"--pattern={options.pattern} has {'a' if pattern.has_mask else 'no'} mask",
            why="the model writes or chooses in place of {mask}" if has_mask else "the whole text is read",
            try_="put {mask} where the answer stands" if has_mask else "leave the mask out, or give --target",
        )
    return pattern


def _labelled(
    options: PredictConfig, model: Model, task: Task | None, given: set[str], pattern: Pattern | None
) -> Task:
    """The task that gives each row one of its labels."""
    if task is not None:
        if given:
            raise UserError(
                f"{model.name} is asked as it was taught, without --{', --'.join(sorted(given))}",
                why=f"its task.json has the pattern and the words of {task.name}",
                try_="leave them out; --kind=embed or score takes a text of your own",
            )
        task = _one_item(task)
        if not task.labels or task.kind != "choose":
            raise UserError(
                f"{task.name} does not give each row one of its labels",
                why="its items have candidates of their own" if task.kind == "choose" else "its answers are written",
                try_=f"--kind={_usual(model, task)}",
            )
        return task
    if not options.words:
        raise UserError(
            "--words is missing",
            why=f"{model.name} was not fine-tuned, so nothing says which labels there are",
            try_="--words='{bad: terrible, good: great}' --pattern='{text~} It was {mask}.'",
        )
    column = pattern.fields[0] if pattern and pattern.fields else options.text
    return tasks.define(TaskConfig(text=column, words=options.words, pattern=options.pattern), lambda: [])


def _choosing(options: PredictConfig, model: Model, task: Task | None, pattern: Pattern | None) -> Kind:
    if options.candidates:
        return choose(options.candidates, pattern, options.text, options.overlong)
    if task is not None and task.kind == "choose" and not task.labels:
        return choose_by_task(_one_item(task), options.overlong)
    raise UserError(
        "--candidates is missing",
        why=f"nothing says among what {model.name} chooses in a row",
        try_="--candidates <a column with lists>, or --candidates <column> <column>",
    )


def _one_item(task: Task) -> Task:
    if task.unpack:
        raise UserError(
            f"a row of {task.name} holds several items",
            why="prediction gives each row one answer",
            try_="use evaluate.py, which keeps the answer to each item",
        )
    return task
