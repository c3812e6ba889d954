"""Tasks: what a model is asked of items, and how its answers are judged.

A task is a module, found by its name: `rte` is `pipelines.tasks.rte`, a dotted name is the user's own. Its docstring
says what is asked, where data comes from and under which licence, and which script is the official metric. It defines

    VERSION: int                raised whenever a rendered item changes
    PATTERNS                    tuple of `Pattern`: how an item is asked, and the word of each label
    item(row) -> Item           the item of a row of a file; raises ValueError for a row that is none

and may define

    LABELS: tuple[str, ...]     the classes in their order, where all items have the same
    METRICS = ("accuracy",)     names of `pipelines.metrics`, the one that selects first
    DEFAULT_PATTERN = 0         the pattern of the reference
    PATTERN_NAMES = {}          names by which a recipe may call patterns instead of their numbers
    CONTEXT = ()                fields that were public before, such as a passage: what else is asked must not be in
                                the text that a model is trained on (`data.select.decontaminate`)
    KIND = "choose"             "write": the model writes the first candidate by itself, or it does not
                                "read": the likelier of two texts is chosen, each read from left to right
                                "generate": the model writes a text until its end, which is compared with the
                                candidates, or with the item's `blanks`
    MAX_TOKENS = 128            what such a task writes at most, where the recipe says nothing
    BASELINES = {}              what writes its answers without a model, by name
    COUNT_END = None            whether the end counts behind candidates; by default unless each is one token
    unpack(row)                 a row for each item, where a row of the published files holds several
    train_items(item)           what is learned from an item, where it is not the item itself
    STRIDE = 0                  of a task that reads: texts longer than the model are read in windows, which move on
                                by so many tokens
    ZERO_SHOT = False           whether nothing is learned from its items: one file is then not cut into splits
    TAUGHT_BY = ""              another task: who was fine-tuned on it may be asked this one
    read(url)                   rows of a split, where its files are not tables with named columns
    find_splits(data)           split -> URL, where files are not called as usual, or one file is not to be cut
    together(config)            names of fields: where one file is cut, rows in which these are equal stay in one split

A task that recipes shape, such as `classification`, defines `define(config, rows) -> Task` instead; `rows` is a
function that gives the rows of the train split; and maybe `READS`, names of the settings for own files that it reads.
Nothing else needs to know of a task: fine-tuning, evaluation, prediction and decontamination find it by its name.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from infra.errors import UserError
from pipelines import plugins
from pipelines.questions import splits
from pipelines.questions.config import GenerationConfig, TaskConfig
from pipelines.questions.generation import generation_of
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.splits import SplitFile
from pipelines.questions.task import Kind, Task

_CONTRACT = {
    "VERSION": "VERSION = 1",
    "PATTERNS": "PATTERNS, a tuple of Pattern",
    "item": "item(row) -> Item",
}
_MAX_TOKENS = 128
# Settings that only a task of own files reads, and those of most.
_OF_OWN_FILES = ("text", "second", "label", "id", "words", "source", "target", "blanks")
_OF_LABELS = ("text", "second", "label", "id", "words")


def find(name: str) -> ModuleType:
    """The task's module. Raises UserError, which names the nearest, where there is none."""
    package = sys.modules[__name__]
    shaped = hasattr(plugins.find_module("task", name, package, required={}), "define")
    return plugins.find_module("task", name, package, required={} if shaped else _CONTRACT)


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    """The task of a recipe. rows: gives those of the train split, for a task that finds its labels in them.

    Raises UserError for settings that the task does not have, and for patterns that cannot work.
    """
    module = find(config.name)
    _check_settings(config, getattr(module, "READS", _OF_LABELS) if hasattr(module, "define") else ())
    try:
        task = module.define(config, rows) if hasattr(module, "define") else _defined(config, module)
        return _with_settings(task, config, getattr(module, "PATTERN_NAMES", {}))
    except ValueError as error:
        raise UserError(f"task.name={config.name}: {error}") from error


def find_splits(config: TaskConfig) -> dict[str, SplitFile]:
    """Split -> its rows, as the recipe names them or as the task's data are published.

    Raises UserError for an unknown task, DataError where there is nothing to read.
    """
    module, data = find(config.name), config.data or ""
    if hasattr(module, "find_splits") and not config.splits:
        found = {name: SplitFile(url) for name, url in module.find_splits(data).items()}
    else:
        found = splits.find_splits(data, config.splits, config.shares)
    together = module.together(config) if hasattr(module, "together") else ()
    found = {name: replace(one, read=getattr(module, "read", None), together=together) for name, one in found.items()}
    if getattr(module, "ZERO_SHOT", False):
        found = {name: replace(one, first=0.0, last=1.0) for name, one in found.items()}
    return found


def _check_settings(config: TaskConfig, reads: Sequence[str]) -> None:
    """Raises UserError for a setting of own files that the task does not read."""
    default = TaskConfig()
    given = [name for name in _OF_OWN_FILES if getattr(config, name) != getattr(default, name)]
    if unread := [name for name in given if name not in reads]:
        raise UserError(
            f"task.{unread[0]} does nothing with the task {config.name}",
            why="it is for own files of another form"
            if reads
            else "it is for own files; this task knows the form of its data",
            try_="leave it out" if reads else "leave it out, or use --task.name=classification",
        )


def _defined(config: TaskConfig, module: ModuleType) -> Task:
    kind: Kind = getattr(module, "KIND", "choose")
    is_generated = kind == "generate"
    return Task(
        name=config.name,
        version=module.VERSION,
        kind=kind,
        patterns=tuple(module.PATTERNS),
        item=module.item,
        unpack=getattr(module, "unpack", None),
        train_items=getattr(module, "train_items", None),
        metrics=tuple(getattr(module, "METRICS", ("accuracy",))),
        labels=tuple(getattr(module, "LABELS", ())),
        default_pattern=getattr(module, "DEFAULT_PATTERN", 0),
        context=tuple(getattr(module, "CONTEXT", ())),
        count_end=getattr(module, "COUNT_END", True if is_generated else None),
        taught_by=getattr(module, "TAUGHT_BY", ""),
        stride=getattr(module, "STRIDE", 0),
        zero_shot=getattr(module, "ZERO_SHOT", False),
        generation=generation_of(config.generation, max_tokens=getattr(module, "MAX_TOKENS", _MAX_TOKENS))
        if is_generated
        else None,
        baselines=getattr(module, "BASELINES", {}),
    )


def _with_settings(task: Task, config: TaskConfig, names: Mapping[str, int]) -> Task:
    """The task with the metrics, the pattern and the head that the recipe names."""
    given, usual = (generation_of(one, max_tokens=_MAX_TOKENS) for one in (config.generation, GenerationConfig()))
    if task.generation is None and given != usual:
        raise ValueError("task.generation is for tasks that generate texts, and the answers of this one are known")
    if config.metrics:
        task = replace(task, metrics=tuple(config.metrics))
    wanted = None if config.pattern is None else str(names.get(config.pattern, config.pattern))
    if wanted is not None and wanted.isdecimal():
        task.pattern(int(wanted))
        task = replace(task, default_pattern=int(wanted))
    elif wanted is not None:
        own = Pattern(wanted, task.pattern().words)
        task = replace(task, patterns=(*task.patterns, own), default_pattern=len(task.patterns))
    return _for_head(task) if config.head else _writing(task)


def _for_head(task: Task) -> Task:
    """The task with the one pattern that a classification head reads."""
    if not task.labels:
        raise ValueError("a classification head needs labels, and the items of this task have candidates of their own")
    if task.kind in ("write", "generate"):
        raise ValueError("a classification head writes nothing, and the answers of this task are written")
    pattern = task.pattern()
    return replace(task, patterns=(pattern.for_head() if pattern.has_mask else pattern,), default_pattern=0)


def _writing(task: Task) -> Task:
    if without := [pattern.text for pattern in task.patterns if not pattern.has_mask]:
        raise ValueError(
            f"the pattern {without[0]!r} needs one {{mask}}, which the model fills; a classification head, task.head, "
            "reads without one"
        )
    return task
