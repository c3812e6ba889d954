"""What a store says of itself: `manifest.json` as a value. It is published last, and readers trust nothing else."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipelines.corpus.ledger import DocumentCounts, SourceBalance
from pipelines.selection.contamination import SetReport


@dataclass(frozen=True)
class MixedStore:
    """A member of a mix."""

    url: str
    digest: str
    weight: float
    """Share of the training rows; the weights of all members sum to 1."""


@dataclass(frozen=True)
class Manifest:
    """The fields are those of `manifest.json`, which also has the format, the digest and the shards."""

    tokenizer_digest: str
    vocab_size: int
    dtype: str
    """Type of the stored ids, as numpy writes it: <u2."""
    settings: dict[str, Any]
    """The settings that decide content, as the digest covers them: `pipelines.names.StoreSettings`, or those that the
    members of a mix share.
    """
    documents: DocumentCounts
    sources: tuple[SourceBalance, ...] = ()
    contamination: tuple[SetReport, ...] = ()
    held_out_ends: int = 0
    """Documents whose end is validation, because there are too few to hold out whole ones."""
    without_tokens: int = 0
    """Documents of which the tokenizer leaves nothing: no row holds them."""
    text_digests: tuple[str, ...] = ()
    """The units of cleaned text that it was made of."""
    data: dict[str, Any] = field(default_factory=dict)
    """The settings of data that it was made with, as a recipe has them: `pipelines.config.made_with`. The digest does
    not cover them. Empty for a mix, and for stores of earlier versions.
    """
    members: tuple[MixedStore, ...] = ()
    """The stores of a mix, which holds no rows of its own."""

    @property
    def sequence_length(self) -> int:
        """Tokens of the longest segment."""
        return self.settings["sequence_length"]

    @property
    def row_width(self) -> int:
        """Positions of a row once it is laid out."""
        return self.settings["row_width"]

    @property
    def packed_for(self) -> dict[str, Any]:
        """Fields of BlanksConfig: the mixture that rows have room for, and the settings of its objectives."""
        return self.settings["blanks"]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_json(entry: dict[str, Any]) -> "Manifest":
        """What `to_json` gave, of this version or of an earlier one that knew fewer fields."""
        known = {one.name: entry[one.name] for one in fields(Manifest) if one.name in entry}
        return Manifest(
            **{
                **known,
                "documents": DocumentCounts(**known["documents"]),
                "sources": tuple(SourceBalance(**source) for source in known.get("sources", [])),
                "contamination": tuple(SetReport(**report) for report in known.get("contamination", [])),
                "text_digests": tuple(known.get("text_digests", [])),
                "members": tuple(MixedStore(**member) for member in known.get("members", [])),
            }
        )
