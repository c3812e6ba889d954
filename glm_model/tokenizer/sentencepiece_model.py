"""A SentencePiece model, BPE or unigram, as a tokenizer.json that gives text the ids that SentencePiece gives.

How text is normalised, where spaces go and what an unknown character becomes stands in the file itself. The tokenizers
library works by other means, so the result is proved: it and SentencePiece encode the same probes, and a file for which
they differ is refused. (Of two ways to cut a word that a unigram model scores equally, "a|aa" and "aa|a", SentencePiece
takes either, as its rounding has it.)

Needs the package sentencepiece (extra `unigram`), only for reading the file. Takes about 0.5 s for 50,000 pieces, as
SentencePiece calls its tokens.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import tokenizers

# Ids after the last piece of the authors' Chinese models. They left one unused.
_AUTHORS = "cog-pretrain"
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
_UNIGRAM, _BPE = 1, 2  # kinds of models
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # kinds of pieces
_SPACE = "\u2581"
# Noncharacters, which no text holds: they stand for a character while rules that would change it pass.
_KEPT_TILDE, _KEPT_DOTTED_I = "\ufdd0", "\ufdd1"
_PROBES = (
    *("", " ", "a", "Alpha beta, gamma.", " leading and trailing ", "two  spaces   three", "a\nb\r\n\tc\n\n d  "),
    *(
        "x = 12345 + 678;",
        "größe GRÖẞE Straße",
        "中文，你好。～１２",
        "日本語 ｶﾞﾊﾟ ガ",
        "한국어",
        "Россия",
        "नमस्ते क्षि",
        "مرحبا",
    ),
    *(
        "🐈 👩‍👩‍👧 🐈🐈",
        "\u1112\u1161\u11ab\u1100\u116e\u11a8",
        "e\u0302\u0301 e\u0301 o\u031b\u0301",
        "Ａ\u0301 ª\u0301",
    ),
    *("ﬁne ½ ² ① Ⅷ", "a\u00a0b\u3000c\u200bd\ufeff\u00ad", "\x01a\x7fb\x85", f"{_SPACE} a {_SPACE}{_SPACE}b{_SPACE}"),
    *(
        "naïve café NAÏVE ΣΑΣ",
        "Q\u0301 \u0410\u0301",
        "İstanbul",
        "https://x.org/?q=a_b&c#d",
        "{[(<tag>)]}",
        "zzzzzzzz" * 9,
    ),
)


def spec_of(content: bytes, url: str) -> dict[str, Any]:
    """A tokenizer.json, parsed, from the bytes of a .model file. url: for messages.

    A text never becomes a control piece of the file ("<s>"): such characters in it are spelled out. Raises ValueError
    where the file is not such a model, or cannot be followed.
    """
    model = _parsed(content, url)
    problem = None
    for normalizer in _normalizers(model):
        spec = _spec(model, normalizer)
        problem = _difference(spec, content, model)
        if problem is None:
            return spec
    raise ValueError(
        f"{url} would not give the ids that SentencePiece gives: {problem}. Give the tokenizer.json that belongs to it"
    )


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
    if model.trainer_spec.model_type not in (_BPE, _UNIGRAM) or not model.pieces:
        raise ValueError(
            f"{url} is not a SentencePiece model of BPE or unigram. Give the tokenizer.json that belongs to it"
        )
    if any(piece.type == _UNUSED for piece in model.pieces):
        raise ValueError(f"{url} has pieces that are marked unused. Give the tokenizer.json that belongs to it")
    return model


def _spec(model: Any, normalizer: dict[str, Any] | None) -> dict[str, Any]:
    if _AUTHORS in model.trainer_spec.model_prefix:
        control = [{"id": len(model.pieces) + i, "content": name} for i, name in enumerate(_SPECIAL)]
    else:
        control = [{"id": i, "content": p.piece} for i, p in enumerate(model.pieces) if p.type in (_UNKNOWN, _CONTROL)]
    # normalized: SentencePiece finds them in the text whose spaces are pieces already.
    text = [{"id": i, "content": name, "normalized": True, "special": False} for i, name in _user_defined(model)]
    return {
        "added_tokens": [*control, *text],
        "normalizer": normalizer,
        "pre_tokenizer": _pre_tokenizer(model),
        "decoder": _decoder(model),
        "model": _bpe(model) if model.trainer_spec.model_type == _BPE else _unigram(model),
    }


def _user_defined(model: Any) -> list[tuple[int, str]]:
    """(id, piece) of the symbols that are found in any text. One with a space never is: text has none by then."""
    return [(i, p.piece) for i, p in enumerate(model.pieces) if p.type == _USER_DEFINED and " " not in p.piece]


def _normalizers(model: Any) -> list[dict[str, Any] | None]:
    """What to try, by the name of the rules: those of a user may be rules like SentencePiece's own and a few more."""
    settings = model.normalizer_spec
    if not settings.precompiled_charsmap:
        rules: list[list[dict[str, Any]]] = [[]]
    else:
        charsmap = base64.b64encode(settings.precompiled_charsmap).decode()
        own = {"type": "Precompiled", "precompiled_charsmap": charsmap}
        known = re.fullmatch("(nmt_)?nfkc(_cf)?", settings.name)
        like_nmt = _after_nfkc(own, nmt=not known or bool(known[1]), folds_case=bool(known and known[2]))
        rules = [like_nmt] if known else [[own], like_nmt]
    steps = [[*one, *_spaces(model)] for one in rules]
    return [{"type": "Sequence", "normalizers": one} if one else None for one in steps]


def _after_nfkc(own: dict[str, Any], *, nmt: bool, folds_case: bool) -> list[dict[str, Any]]:
    r"""The file's rules behind NFKC, which they contain.

    The library applies such rules to graphemes below 6 bytes by their first match and drops what is behind it (0.23.3:
    "e\u0302\u0301" loses its second mark), and those of longer sequences (Hangul, voiced half-width kana) not at all.
    After NFKC only rules for single characters are left. What differs then is canonically equal: marks that are not in
    Unicode's order, or stand behind a ligature, are composed here and left apart by SentencePiece.
    """
    steps: list[dict[str, Any]] = [{"type": "NFKC"}]
    behind: list[dict[str, Any]] = []
    if nmt:  # its rules leave the full-width tilde as it is
        steps.insert(0, _replace("～", _KEPT_TILDE))
        steps.append(_replace(f"[\r{_SPACE}]", " ", regex=True))  # these begin graphemes: "\r\n"
        behind.append(_replace(_KEPT_TILDE, "～"))
    if folds_case:  # a capital with a mark that has no composed form would lose it
        steps += [_replace("İ", _KEPT_DOTTED_I), {"type": "Lowercase"}]
        behind.append(_replace(_KEPT_DOTTED_I, "İ"))
    return [*steps, own, *behind]


def _spaces(model: Any) -> list[dict[str, Any]]:
    settings, steps = model.normalizer_spec, []
    if settings.remove_extra_whitespaces:
        steps.append(_replace(" {2,}", " ", regex=True))
        steps.append(_replace(rf"\A +|[ {_SPACE}]+\z", "", regex=True))
    if settings.add_dummy_prefix:
        if model.trainer_spec.treat_whitespace_as_suffix:
            steps.append(_replace(r"(?<=[\s\S])\z", " ", regex=True))
        elif symbols := _user_defined(model):
            # Not Prepend: the library normalises the symbols too, and would look for them behind a space only. A text
            # that is such a symbol and nothing else has no space in front, which SentencePiece gives it.
            alone = "".join(rf"(?!{re.escape(symbol)}\z)" for _, symbol in symbols)
            steps.append(_replace(rf"\A{alone}(?=[\s\S])", " ", regex=True))
        else:
            steps.append({"type": "Prepend", "prepend": " "})
    if settings.escape_whitespaces:
        steps.append(_replace(" ", _SPACE))
    return steps


def _replace(pattern: str, content: str, *, regex: bool = False) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex" if regex else "String": pattern}, "content": content}


def _pre_tokenizer(model: Any) -> dict[str, Any] | None:
    """Cuts where no piece reaches across, for speed; and with unigram behind the first character of what must not be
    found in a text, because its vocabulary has no other kind of entry.
    """
    pieces = [piece.piece for piece in model.pieces if piece.type == _NORMAL]
    steps: list[dict[str, Any]] = []
    if not any(re.search(f"[^{_SPACE}]{_SPACE}", piece) for piece in pieces):
        steps.append(_split(f"{_SPACE}+[^{_SPACE}]*|[^{_SPACE}]+", "Isolated"))
    elif not any(re.search(f"{_SPACE}[^{_SPACE}]", piece) for piece in pieces):
        steps.append(_split(f"[^{_SPACE}]*{_SPACE}+|[^{_SPACE}]+", "Isolated"))
    if model.trainer_spec.model_type == _UNIGRAM:
        names = [piece.piece for piece in model.pieces if piece.type in (_UNKNOWN, _CONTROL, _BYTE)]
        heads = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
        steps.append(_split(heads, "MergedWithPrevious"))
    return {"type": "Sequence", "pretokenizers": steps} if steps else None


def _split(pattern: str, behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _decoder(model: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [_replace(_SPACE, " ")]
    if model.trainer_spec.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if model.normalizer_spec.add_dummy_prefix:
        # Not Strip, which panics where there is nothing to strip.
        steps.append(_replace(r" \z" if model.trainer_spec.treat_whitespace_as_suffix else r"\A ", "", regex=True))
    return {"type": "Sequence", "decoders": steps}


def _bpe(model: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": model.pieces[model.trainer_spec.unk_id].piece,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.trainer_spec.byte_fallback,
        "ignore_merges": False,
        "vocab": {piece.piece: id_ for id_, piece in enumerate(model.pieces)},
        "merges": _merges(model.pieces),
    }


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


def _unigram(model: Any) -> dict[str, Any]:
    return {
        "type": "Unigram",
        "unk_id": model.trainer_spec.unk_id,
        "byte_fallback": model.trainer_spec.byte_fallback,
        "vocab": [[piece.piece, piece.score] for piece in model.pieces],
    }


def _difference(spec: dict[str, Any], content: bytes, model: Any) -> str | None:
    """What SentencePiece says otherwise about some texts: fixed ones, and ones made of the file's own pieces."""
    from sentencepiece import SentencePieceProcessor

    sentencepiece = SentencePieceProcessor(model_proto=content)  # pyright: ignore[reportCallIssue]
    added = [token for token in spec["added_tokens"] if token.get("special") is False]
    whole = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, **spec}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    ours = tokenizers.Tokenizer.from_str(json.dumps({**whole, "added_tokens": [{**t, **flags} for t in added]}))
    pieces = [piece.piece.replace(_SPACE, " ") for piece in model.pieces if piece.type == _NORMAL]
    some = pieces[:: max(1, len(pieces) // 300)]
    symbols = [f"a{symbol}b {symbol} c{symbol}{symbol}" for _, symbol in _user_defined(model)]
    for text in (*_PROBES, " ".join(some), "".join(some), *symbols):
        found, wanted = ours.encode(text, add_special_tokens=False), sentencepiece.encode(text)
        if found.ids != wanted:
            theirs = _told(sentencepiece.encode(text, out_type=str))
            return f"{text[:80]!r} would be {_told(found.tokens)} instead of {theirs}"
    return None


def _told(pieces: list[str]) -> str:
    return " ".join(pieces[:20]) + (" ..." if len(pieces) > 20 else "")
