"""The settings that decide which documents are left out. Light: a recipe is read without pyarrow."""

from dataclasses import dataclass, field
from typing import Any, Literal

# data.clean.preset -> what data.select.duplicates=auto means.
DUPLICATES: dict[str, Literal["off", "exact", "near"]] = {"off": "off", "light": "exact", "strict": "near"}


@dataclass
class EvaluationSet:
    """Texts that training must not have seen."""

    reader: str
    """How to read it, as in data.sources; or a task, such as task:rte: all that is asked in its splits but train."""
    url: str
    """File, folder, glob or URL; the file or folder of a task."""
    fields: list[str] = field(default_factory=list)
    """Fields of an entry that are checked, of readers with a `field` option. Default: the reader's own; of a task what
    is asked, without public context such as a passage of a newspaper.
    """
    name: str | None = None
    """What reports call it. Default: the last component of the URL."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the reader; of a task those that `task` has elsewhere, such as {text: body, label: stars}."""


@dataclass
class SelectConfig:
    """Which documents are left out because of what they are or say."""

    duplicates: Literal["auto", "off", "exact", "near"] = "auto"
    """Which duplicates are dropped. exact: texts that differ in white space at most; near: also similar texts. auto:
    by data.clean.preset: near with strict, exact with light, off with off.
    """
    similarity: float = 0.8
    """Share of common text from which on two documents are near duplicates (Jaccard similarity, estimated with an error
    of some 0.035). At 0.8, pairs as similar as 0.9 are all found, of those as similar as 0.8 half, as 0.7 one in 200.
    """
    exclude: list[str] = field(default_factory=list)
    """Documents to leave out: their ids (32 hexadecimal digits), or files, folders or globs as for sources, also given
    by their paths below the root of a source. An entry that names nothing is refused.
    """
    decontaminate: list[EvaluationSet] = field(default_factory=list)
    """Evaluation sets, as {reader, url, fields} or {reader: task:<name>, url}: documents that share 50 bytes of text
    with an entry are left out.
    """
    contaminated: Literal["drop", "flag"] = "drop"
    """flag: keep contaminated documents and report them in the store's contamination.parquet."""


def duplicates_of(config: SelectConfig, preset: Literal["off", "light", "strict"]) -> Literal["off", "exact", "near"]:
    """Which duplicates are dropped. preset: data.clean.preset."""
    return DUPLICATES[preset] if config.duplicates == "auto" else config.duplicates
