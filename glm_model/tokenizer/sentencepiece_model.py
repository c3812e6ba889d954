"""A SentencePiece BPE model as a tokenizer.json, with the special tokens of the authors' Chinese models behind its
pieces, as SentencePiece calls its tokens.

Needs the package sentencepiece (extra `unigram`), only for reading the file. Takes about 0.5 s for 50,000 pieces.
"""

from __future__ import annotations

import base64
from typing import Any

# Ids after the last piece. The authors left one unused.
_SPECIAL = (
    "<|endoftext|>",
    "[SEP]",
    "[CLS]",
    "[MASK]",
    "[UNK]",
    "[unused]",
    "<|startofpiece|>",
    "<|endofpiece|>",
    "[sMASK]",
    "[gMASK]",
)
_BPE, _NORMAL = 2, 1


def spec_of(content: bytes, url: str) -> dict[str, Any]:
    """A tokenizer.json, parsed, from the bytes of a .model file. url: for messages.

    It gives text the ids that SentencePiece gives. A text never becomes a piece of the file's own markup ("<s>",
    "<n>"): such characters in it are spelled out. Raises ValueError where the file is not such a model.
    """
    model = _parsed(content, url)
    if model.trainer_spec.model_type != _BPE or not model.pieces:
        raise ValueError(f"{url} is not a SentencePiece BPE model. Give the tokenizer.json that belongs to it")
    vocab = {piece.piece: id_ for id_, piece in enumerate(model.pieces)}
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {
        "added_tokens": [{"id": len(vocab) + i, "content": name} for i, name in enumerate(_SPECIAL)],
        "normalizer": _normalizer(model.normalizer_spec),
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": model.pieces[model.trainer_spec.unk_id].piece,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": _merges(model.pieces),
        },
    }


def _parsed(content: bytes, url: str) -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise ValueError(
            f"{url} is a SentencePiece model, which needs the package sentencepiece ({error}). "
            "pip install sentencepiece protobuf, or give a tokenizer.json"
        ) from error
    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's own class of errors, for which nothing else here imports protobuf
        raise ValueError(f"{url} is damaged or not a SentencePiece model ({error}). Copy it again") from error
    return model


def _normalizer(spec: Any) -> dict[str, Any] | None:
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _merges(pieces: Any) -> list[list[str]]:
    """Pairs, sorted by the score of the piece that they make: SentencePiece first joins the pair with the highest."""
    scores = {piece.piece: piece.score for piece in pieces if piece.type == _NORMAL}
    found = [
        (-score, index, [whole[:cut], whole[cut:]])
        for index, (whole, score) in enumerate(scores.items())
        for cut in range(1, len(whole))
        if whole[:cut] in scores and whole[cut:] in scores
    ]
    return [pair for _, _, pair in sorted(found)]
