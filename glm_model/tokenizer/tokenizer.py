"""Text <-> token ids, with GLM's special tokens kept apart from the text tokenizer.

The text tokenizer knows no special token, so raw text that contains the characters "[MASK]" stays text. Loading takes
about 0.1 s (BERT); encoding runs at 3 to 15 MB/s per core. Never imports torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np

from glm_model import urls
from glm_model.tokenizer.cuts import MayCut, cut_rule
from glm_model.tokenizer.in_context import NEAR, inside_encoder, near_before, stand_ins
from glm_model.tokenizer.published import (
    CLS,
    EOP,
    GMASK,
    MASK,
    PROMPT_MASKS,
    SMASK,
    SOP,
    no_tokenizer,
    read_spec,
    special_roles,
    text_tokens,
    vocabulary_size,
    with_special_tokens,
)
from glm_model.tokenizer.spelling import byte_alphabet, mentions, tidy
from glm_model.tokenizer.text_tokenizer import encode_batch, make_text_tokenizer
from glm_model.tokenizer.unknown import UnknownBytes, unknown_id
from glm_model.tokenizer.word_cache import word_cache_for, words_are_independent

# The parts of a tokenizer file that decide which ids a text gets; the digest covers nothing else.
_TEXT_SECTIONS = ("normalizer", "pre_tokenizer", "model")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the control tokens; -1 for a mask that the vocabulary lacks."""

    pad: int
    cls: int
    mask: int
    smask: int
    gmask: int
    sop: int
    eop: int
    unk: int | None

    @property
    def eos(self) -> int:
        """End of document: the padding id, as in the authors' code."""
        return self.pad


class WholeText(NamedTuple):
    """A text's ids, uint32 [T]; the character of the text at which each token begins, int64 [T]; its unknown bytes."""

    ids: np.ndarray
    starts: np.ndarray
    unknown_bytes: int


class Tokenizer:
    """An immutable text tokenizer with special ids: from `load`, training, or the text of a tokenizer.json."""

    def __init__(self, tokenizer_json: str):
        self._begin(with_special_tokens(json.loads(tokenizer_json)))

    def _begin(self, spec: dict[str, Any]) -> None:
        self._text, self._spec = make_text_tokenizer(spec)
        self._text_tokens: dict[int, str] = {t["id"]: t["content"] for t in text_tokens(spec)}
        control = {t["id"]: t["content"] for t in spec["added_tokens"] if t["id"] not in self._text_tokens}
        self.special: SpecialTokens = _special_ids(spec)
        self.vocab_size: int = vocabulary_size(spec)
        """Number of ids, specials included."""
        self._names = {**control, **_own_names(self.special)}
        self.ends_words_at_spaces: bool = words_are_independent(spec)
        """Whether a space always ends a word and leaves no token, as with BERT."""
        # Not a bound method: the reference cycle would keep the cache alive.
        self._word_cache = word_cache_for(spec, partial(encode_batch, self._text))
        self._inside = inside_encoder(self._text)

    @classmethod
    def load(cls, url: str, *, lowercase: bool | None = None, task_masks: bool | None = None) -> Tokenizer:
        """Read a tokenizer.json, a folder with one, a run, a BERT vocab.txt, a GPT-2 style vocab.json with its
        merges.txt, or a SentencePiece .model, such as the authors'.

        url: local path or fsspec URL. lowercase: only for vocab.txt, which does not say it; None: as the
        tokenizer_config.json beside it says, else as its pieces do. task_masks: whether to have [gMASK] and [sMASK];
        None: as the file says if it is one of ours, else yes. Raises ValueError when the file is missing or damaged.
        """
        spec = read_spec(urls.model_folder(str(url)), lowercase)
        if dropout := spec["model"].get("dropout"):
            warnings.warn(
                f"{url} has model.dropout={dropout}, which gives a text other ids at every call. It is left out: equal "
                "texts get equal ids, those without dropout",
                stacklevel=2,
            )
        try:
            tokenizer = cls.__new__(cls)  # not by its text, which takes as long to write and parse as all the rest
            tokenizer._begin(with_special_tokens(with_special_tokens(spec, task_masks=task_masks)))
            return tokenizer
        except ValueError:
            raise
        except Exception as error:  # tokenizers raises plain Exception; where a part is missing, we raise KeyError
            raise no_tokenizer(str(url), f"{type(error).__name__}: {error}") from error

    def save(self, directory: str) -> str:
        """Write <directory>/tokenizer.json, which tokenizers.Tokenizer.from_file reads too. Returns its URL."""
        url = f"{str(directory).rstrip('/')}/tokenizer.json"
        urls.write(url, self.to_json().encode())
        return url

    def to_json(self) -> str:
        """The whole tokenizer, special tokens included, in the tokenizer.json format."""
        return json.dumps(self._spec, ensure_ascii=False)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding: vocab_size rounded up to a multiple of 128."""
        return -(-self.vocab_size // 128) * 128

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that do not stand for text: [CLS], the masks, [UNK], and all special tokens of a published vocabulary."""
        unknown = unknown_id(self._spec)  # in SentencePiece's vocabularies a token like others
        return frozenset(id_ for id_ in self._names if id_ >= 0) | (set() if unknown is None else {unknown})

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the text tokenizer: equal digests give equal ids. It does not cover the special tokens."""
        text_spec = {name: self._spec[name] for name in _TEXT_SECTIONS}
        if self._text_tokens:
            text_spec["added_tokens"] = text_tokens(self._spec)
        canonical = json.dumps(text_spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """int32 ids of a text: never a control token, whatever the text contains."""
        return np.asarray(self._text.encode(text, add_special_tokens=False).ids, dtype=np.int32)

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(flat uint32 ids, int64 offsets [N+1]): the ids of texts[i] are ids[offsets[i]:offsets[i+1]].

        Not for use by several threads at once.
        """
        return self._word_cache.encode_batch(texts) if self._word_cache else encode_batch(self._text, texts)

    @cached_property
    def may_cut(self) -> MayCut | None:
        """may_cut(text, at) says whether the ids of text[:at] and text[at:] are those of the text. None: no such place
        is known, and a text has to be encoded whole.
        """
        return cut_rule(self._spec, self._text)

    def encode_whole(self, text: str) -> WholeText:
        """The ids of a text with their places in it. Takes about a fifth longer than `encode`."""
        encoding = self._text.encode(text, add_special_tokens=False)
        ids = np.asarray(encoding.ids, np.uint32)
        spans = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(ids)).reshape(-1, 2)
        return WholeText(ids, spans[:, 0], self._unknown.count_one(text, ids, spans))

    def unknown_bytes(self, texts: list[str], ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """UTF-8 bytes of each text that the tokenizer does not know, int64 [N]: those behind the vocabulary's unknown
        token, or characters that a vocabulary without one drops.

        ids, offsets: what `encode_batch` gave for the texts. Cheap where nothing is unknown.
        """
        return self._unknown.count(texts, ids, offsets)

    def encode_batch_by_library(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same ids without looking words up, for benchmarks to compare with."""
        return encode_batch(self._text, texts)

    def encode_prompt(self, text: str) -> np.ndarray:
        """int32 ids of a prompt, in which [MASK], [sMASK] and [gMASK] become their ids. Not meant for corpora.

        The text beside a mask has the ids that it has in the whole text, if the blank covers whole tokens. Where spaces
        are tokens, one space before a mask is left out: the text of the blank begins with it.
        """
        mask_ids = {MASK: self.special.mask, SMASK: self.special.smask, GMASK: self.special.gmask}
        ids: list[int] = []
        parts, hidden = PROMPT_MASKS.split(text), stand_ins(text)
        for index, (between, mask) in enumerate(zip(parts[::2], [*parts[1::2], None], strict=True)):
            part = self._before_mask(between) if mask else between
            befores = hidden if index else ("",)
            afters = ("",)
            if mask:  # a space ends a word in every kind; within white space it would belong to its run
                spaces = () if part[-1:].isspace() and part == between else (f" {hidden[0]}",)
                afters = (*spaces, *hidden)
            ids += self._inside(part, befores, afters)
            if mask:
                ids.append(mask_ids[mask] if mask_ids[mask] >= 0 else self.special.mask)
        return np.array(ids, np.int32)

    def encode_answers(self, prompt: str, answers: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of the text that stands in place of each mask of a prompt, as they stand in the whole text.

        Where spaces are tokens, an answer has the space before its mask in front, whether it is given with it or not.
        """
        between, hidden = PROMPT_MASKS.split(prompt)[::2], stand_ins(prompt)
        if len(answers) != len(between) - 1:  # the layout says what is wrong
            return [self.encode(answer) for answer in answers]
        ids = []
        for index, answer in enumerate(answers):
            left, right = self._before_mask(between[index]), between[index + 1]
            if answer and left != between[index] and not answer[0].isspace():
                answer = f" {answer}"
            near = near_before(left, last_word=self.ends_words_at_spaces)
            befores = (near, *hidden) if left else hidden if index else ("",)
            afters = (right[:NEAR],) if right or index == len(answers) - 1 else ()
            inside = self._inside(answer, befores, (*afters, f" {hidden[0]}", *hidden))
            ids.append(np.array(inside, np.int32))
        return ids

    def decode(self, ids: Any, *, show_special: bool = False, inside: bool = False) -> str:
        """Text of ids. Control tokens are left out, or with show_special appear by their surface; the "##" of a first
        token that continues a word is left out with them. inside: the ids are a part of a text and not its beginning,
        so that the space of the first word is kept.
        """
        hidden = self._names.keys() - {self.special.unk}
        parts: list[str] = []
        run: list[int] = []
        for id_ in chain((int(i) for i in ids), (None,)):
            if id_ is not None and id_ not in hidden:
                run.append(id_)
                continue
            if run:
                parts.append(self._decode_text(run, inside))
                run, inside = [], True
            inside = inside or id_ != self.special.cls
            if id_ is not None and show_special:
                parts.append(self.surface(id_))
        if not self._joins_subwords:
            return "".join(parts)
        if show_special:
            return " ".join(parts)
        return self._decode_text([i for i in map(int, ids) if i not in hidden], inside).removeprefix(self._inside_word)

    def surface(self, id_: int) -> str:
        """How one id is spelled: "##ing" (WordPiece), " the" (byte-level BPE, Unigram), "[MASK]"; "" if unused."""
        if id_ in self._names:
            return self._names[id_]
        if not 0 <= id_ < self.padded_vocab_size:
            raise ValueError(f"token id {id_} is outside the vocabulary of {self.vocab_size:,} ids")
        if id_ in self._text_tokens:
            return self._text_tokens[id_]
        return self._spelled(self._tokens.get(int(id_), ""))

    def surfaces(self) -> list[str]:
        """The surface of every id, in order; length vocab_size."""
        return [self.surface(id_) for id_ in range(self.vocab_size)]

    def __reduce__(self):
        return Tokenizer, (self.to_json(),)

    def __repr__(self) -> str:
        kind = self._spec["model"]["type"]
        return f"Tokenizer({kind}, vocab_size={self.vocab_size}, digest={self.digest[:12]})"

    @cached_property
    def _unknown(self) -> UnknownBytes:
        return UnknownBytes(self._text, self._spec, by_words=self.ends_words_at_spaces)

    @cached_property
    def _tokens(self) -> dict[int, str]:
        vocab = self._spec["model"]["vocab"]
        if isinstance(vocab, dict):
            return {id_: token for token, id_ in vocab.items()}
        return {id_: token for id_, (token, _score) in enumerate(vocab)}

    @cached_property
    def _joins_subwords(self) -> bool:
        return self._spec["model"]["type"] == "WordPiece"

    @property
    def _inside_word(self) -> str:
        return self._spec["model"].get("continuing_subword_prefix", "##")

    @cached_property
    def _byte_of(self) -> dict[str, int] | None:
        return byte_alphabet() if mentions(self._spec, "ByteLevel") else None

    def _spelled(self, token: str) -> str:
        if self._byte_of is not None:
            if all(c in self._byte_of for c in token):
                return bytes(self._byte_of[c] for c in token).decode(errors="replace")
            return token
        if self._joins_subwords:
            return token
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)]).decode(errors="replace")
        return token.replace("\u2581", " ")

    def _before_mask(self, text: str) -> str:
        """The text before a mask, without the space that the blank's first token has."""
        last = text[-1:]
        if self._joins_subwords or not last.isspace():
            return text
        is_a_space = last == " " or self.encode(f"x{last}x").tolist() == self.encode("x x").tolist()
        return text[:-1] if is_a_space else text

    @cached_property
    def _a_letter(self) -> list[int]:
        """The id of a token without a space in front, if there is one."""
        return [id_ for id_, token in self._tokens.items() if token.isascii() and token.isalpha()][:1]

    def _decode_text(self, ids: list[int], inside: bool) -> str:
        if self._joins_subwords:
            return tidy(" ".join(self.surface(i) for i in ids).replace(f" {self._inside_word}", ""))
        before = self._a_letter if inside else []  # decoders take the space of the first token away
        known = [i for i in ids if i < self.vocab_size]
        return self._decode_known([*before, *known]).removeprefix(self._decode_known(before))

    def _decode_known(self, ids: list[int]) -> str:
        if self._byte_of is None or not self._text_tokens:
            return self._text.decode(ids, skip_special_tokens=False)
        # The library takes the letters of an added token for bytes and loses its accents.
        runs = groupby(ids, self._text_tokens.__contains__)
        return "".join(
            "".join(map(self.surface, run)) if added else self._text.decode(list(run), skip_special_tokens=False)
            for added, run in runs
        )


def _special_ids(spec: dict[str, Any]) -> SpecialTokens:
    roles = {"smask": -1, "gmask": -1, "unk": None, **special_roles(spec)}
    roles.pop("sep", None)
    return SpecialTokens(**roles)


def _own_names(special: SpecialTokens) -> dict[int, str]:
    named = {special.cls: CLS, special.mask: MASK, special.smask: SMASK, special.gmask: GMASK}
    return {**named, special.sop: SOP, special.eop: EOP}
