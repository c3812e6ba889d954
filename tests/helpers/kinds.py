"""A small tokenizer of every published kind, trained on text made here, in English and Chinese."""

import functools
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from glm_model.tokenizer import Tokenizer
from pipelines.store.tokenizer_training import TokenizerTraining, train

_WORDS = [
    "the",
    "river",
    "bridge",
    "carried",
    "a",
    "stone",
    "letter",
    "to",
    "captain",
    "winter",
    "garden",
    "walking",
    "walked",
    "morning",
    "it's",
    "1914",
    "3.5",
]
_CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def english(count: int, *, seed: int = 0) -> str:
    """Sentences in lines and paragraphs, some in quotation marks, with runs of white space."""
    rng = random.Random(seed)
    parts = []
    for _ in range(count):
        sentence = " ".join(rng.choices(_WORDS, k=rng.randint(3, 12))).capitalize() + rng.choice((".", "?", "!", "…"))
        parts += [f'"{sentence}"' if rng.random() < 0.1 else sentence, rng.choice((" ", " ", " ", "  ", "\n", "\n\n"))]
    return "".join(parts[:-1])


def chinese(count: int, *, seed: int = 0) -> str:
    """Sentences without spaces, some in quotation marks, with a name in Latin letters here and there."""
    rng = random.Random(seed)
    parts = []
    for _ in range(count):
        clauses = ["".join(rng.choices(_CHARACTERS, k=rng.randint(3, 12))) for _ in range(rng.randint(1, 3))]
        sentence = "，".join(clauses) + rng.choice(("", "", "GLM", " river ")) + rng.choice("。。！？")
        parts += [f"“{sentence}”" if rng.random() < 0.2 else sentence, "\n" if rng.random() < 0.1 else ""]
    return "".join(parts)


@functools.cache
def of_kind(name: str) -> Tokenizer:
    """The tokenizer of a kind, made once."""
    return KINDS[name]()


def _corpus() -> list[str]:
    return [english(12, seed=i) for i in range(40)] + [chinese(12, seed=i) for i in range(40)]


def _ours(algorithm: Any) -> Tokenizer:
    if algorithm == "unigram":
        pytest.importorskip("sentencepiece")
    return train(_corpus(), TokenizerTraining(algorithm=algorithm, vocab_size=700))


def _trained(text: Library, *, special: tuple[str, ...] = (), **changes: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", "<s>", "</s>", *special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if not special else [],
        show_progress=False,
    )
    text.train_from_iterator(_corpus(), trainer)
    spec = json.loads(text.to_str()) | changes
    spec["added_tokens"] = spec["added_tokens"][:3]
    return Tokenizer(json.dumps(spec))


def _gpt4() -> Tokenizer:
    text = Library(models.BPE())
    text.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_GPT4), behavior="isolated")
    text.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    text.decoder = decoders.ByteLevel()
    return _trained(text)


def _roberta() -> Tokenizer:
    """A space in front of the text, as some byte-level files have it."""
    text = Library(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    text.decoder = decoders.ByteLevel()
    return _trained(text)


def _llama(*, prepend: bool) -> Tokenizer:
    """Llama 2's: the space in front by the normalizer Prepend, the whole text one word; or by Metaspace."""
    text = Library(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if prepend:
        text.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        text.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    else:
        text.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    text.decoder = decoders.Sequence(steps)
    bytes_ = tuple(f"<0x{byte:02X}>" for byte in range(256))
    return _trained(text, special=bytes_, **({"pre_tokenizer": None} if prepend else {}))


def _t5() -> Tokenizer:
    """White space is dropped before Metaspace marks the words."""
    spec = json.loads(_ours("unigram").to_json())
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spec["pre_tokenizer"]]}
    return Tokenizer(json.dumps(spec))


def _sentencepiece() -> Tokenizer:
    """A SentencePiece BPE model, as the authors' Chinese one."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from glm_model.tokenizer.sentencepiece_model import spec_of

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(_corpus()).split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=600,
        minloglevel=2,
    )
    return Tokenizer(json.dumps(spec_of(model.getvalue(), "made.model")))


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": lambda: _ours("wordpiece"),
    "byte-level": lambda: _ours("bpe"),
    "unigram": lambda: _ours("unigram"),
    "byte-level, space in front": _roberta,
    "pattern of GPT-4": _gpt4,
    "Llama, Prepend": lambda: _llama(prepend=True),
    "Llama, Metaspace": lambda: _llama(prepend=False),
    "T5": _t5,
    "SentencePiece": _sentencepiece,
}
