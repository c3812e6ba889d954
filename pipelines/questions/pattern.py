"""A pattern says how an item is asked: its fields, a mask, and the words between them.

    "{premise~}" ?{mask}, {hypothesis}       ~ behind a name: the end of this field may be cut, where a text is too long
                                             ~ before it: its beginning may
    {mask}, {smask}, {gmask}                 where the model writes
    {*text}                                  a field with masks of its own: each [MASK] in it is a blank
    {premise~}{|}{hypothesis~}               without a mask: what a classification head reads; {|} stands between texts
    {{ and }}                                braces

What another field holds is text: a "[MASK]" in it stays what its author wrote.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

MASKS = {"mask": "[MASK]", "smask": "[sMASK]", "gmask": "[gMASK]"}
BREAK = "[SEP]"
"""How the boundary between two texts is shown."""
_TOKEN = re.compile(r"\{\{|\}\}|\{\|\}|\{([~*]?)(\w+)(~?)\}|[{}]")
_NAMES_OF_MASKS = re.compile(r"\[(?=(?:s|g)?MASK\])")
_NAME_OF_BREAK = re.compile(r"\[(?=SEP\])")


class Part(NamedTuple):
    """A piece of a pattern."""

    kind: Literal["text", "field", "blanks", "mask", "break"]
    text: str
    """The words; the name of the field, with or without masks of its own; how the mask or the boundary is written."""
    cut: Literal["", "start", "end"] = ""
    """Which side of a field may be cut."""


@dataclass(frozen=True)
class Pattern:
    """How an item is asked. Raises ValueError for a text with several masks, with a mask and a boundary, or with braces
    that do not match.
    """

    text: str
    words: Mapping[str, str] = field(default_factory=dict)
    """Label -> what the model writes for it. Empty where the candidates are the item's own."""

    def __post_init__(self) -> None:
        masks = sum(part.kind in ("mask", "blanks") for part in self.parts)
        if masks > 1:
            raise ValueError(
                f"the pattern {self.text!r} has {masks} masks: it needs one {{mask}}, which the model fills"
            )
        if masks and any(part.kind == "break" for part in self.parts):
            raise ValueError(f"the pattern {self.text!r} has both a mask and {{|}}, which is for a classification head")

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        found: list[Part] = []
        end = 0
        for match in _TOKEN.finditer(self.text):
            found.append(Part("text", self.text[end : match.start()]))
            found.append(self._part(match))
            end = match.end()
        return tuple(part for part in [*found, Part("text", self.text[end:])] if part.text)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that it shows, in their order."""
        return tuple(part.text for part in self.parts if part.kind in ("field", "blanks"))

    @cached_property
    def has_mask(self) -> bool:
        """Whether the model writes; else a classification head reads."""
        return self.has_blanks or any(part.kind == "mask" for part in self.parts)

    @cached_property
    def has_blanks(self) -> bool:
        """Whether the masks are those of a field, however many it has."""
        return any(part.kind == "blanks" for part in self.parts)

    def for_head(self) -> "Pattern":
        """Its fields alone, with a boundary between them: what a classification head reads."""
        shown = {part.text: part.cut for part in self.parts if part.kind == "field"}
        fields = (f"{{{'~' * (cut == 'start')}{name}{'~' * (cut == 'end')}}}" for name, cut in shown.items())
        return Pattern("{|}".join(fields), self.words)

    def render(self, fields: Mapping[str, str], *, most: int | None = None) -> str:
        """The text with its mask or boundaries. most: characters that are left of each field that may be cut; None: it
        stays whole.
        """
        taken = _NAMES_OF_MASKS if self.has_mask else _NAME_OF_BREAK
        shown: list[str] = []
        for part in self.parts:
            if part.kind == "field":
                shown.append(taken.sub("[ ", _shown(fields[part.text], part, most)))
            else:
                shown.append(fields[part.text] if part.kind == "blanks" else part.text)
        return "".join(shown)

    def shorten(self, fields: Mapping[str, str], fits: Callable[[str], bool]) -> str | None:
        """The longest rendering that fits: of the fields that may be cut the longest are cut first, all to one length.

        None where it does not fit even without them.
        """
        whole = self.render(fields)
        if fits(whole):
            return whole
        cuttable = [len(fields[part.text]) for part in self.parts if part.cut]
        low, high = -1, max(cuttable, default=0)  # what fits, and what does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(self.render(fields, most=middle)) else (low, middle)
        return self.render(fields, most=low) if low >= 0 else None

    def _part(self, match: re.Match[str]) -> Part:
        before, name, behind = match.groups()
        if match.group() == "{|}":
            return Part("break", BREAK)
        if name is None:
            if len(match.group()) == 1:
                raise ValueError(f"the pattern {self.text!r} has a brace without its partner: write {{{{ for a brace")
            return Part("text", match.group()[0])
        if name in MASKS and not before and not behind:
            return Part("mask", MASKS[name])
        if before == "*":
            return Part("blanks", name)
        return Part("field", name, "start" if before else "end" if behind else "")


def _shown(text: str, part: Part, most: int | None) -> str:
    """The text of a field, cut at white space where some is near."""
    if part.cut and most is not None and len(text) > most:
        kept = text[len(text) - most :] if part.cut == "start" else text[:most]
        near = kept[:-16] if part.cut == "end" else kept[16:]
        space = re.search(r"\s\S*$", kept) if part.cut == "end" else re.search(r"^\S*\s", kept)
        if space and len(near) and (space.start() >= len(near) if part.cut == "end" else space.end() <= 16):
            kept = kept[: space.start()] if part.cut == "end" else kept[space.end() :]
        text = kept
    return text
