#!/bin/bash
# tokenizers 0.23.3 loses marks in two places where SentencePiece 0.2.3, or its own input, keeps them.
#
# 1. Normalizer `Precompiled` (the form in which SentencePiece's rules, nmt_nfkc, are written to tokenizer.json: T5,
#    XLM-R, ALBERT, mT5) looks a grapheme below 6 bytes up whole, takes the FIRST, that is the shortest, rule that the
#    grapheme begins with, and drops what stands behind it. SentencePiece takes the longest rule and goes on behind it.
#       "e" + U+0302 + U+0301 (Vietnamese as macOS and PDFs have it)  ->  "ê"; SentencePiece: "ế"
#       "Ａ" + U+0301                                                 ->  "A"; SentencePiece: "Á"
#    Graphemes of 6 bytes and more get the rules of single characters alone:
#       three Hangul jamo of "한"                                     ->  three jamo; SentencePiece: "한"
#    With {"type": "NFKC"} in front of it all three are right.
# 2. Decoder `ByteLevel` takes the letters of an added token for bytes, if all of them are in its alphabet, which holds
#    Latin-1: the added token "café" is decoded to "caf" and U+FFFD. "naïve <b>" comes back whole, for its space is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
venv/bin/python - <<'PY'
import base64
import io

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["the cat sat on the mat"] * 50),
    model_writer=model,
    vocab_size=30,
    hard_vocab_limit=False,
    minloglevel=2,
)
proto = sentencepiece_model_pb2.ModelProto()
proto.ParseFromString(model.getvalue())
assert proto.normalizer_spec.name == "nmt_nfkc"
theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
alone = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
behind_nfkc = normalizers.Sequence([normalizers.NFKC(), alone])
jamo = "\u1112\u1161\u11ab"
found = [
    (text, theirs.normalize(text).lstrip("\u2581"), alone.normalize_str(text), behind_nfkc.normalize_str(text))
    for text in ("e\u0302\u0301", "\uff21\u0301", jamo)
]
print(*found, sep="\n")
assert found == [
    ("e\u0302\u0301", "\u1ebf", "\u00ea", "\u1ebf"),
    ("\uff21\u0301", "\u00c1", "A", "\u00c1"),
    (jamo, "\ud55c", jamo, "\ud55c"),
], "Precompiled has changed"

made = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
made.add_tokens([AddedToken("café"), AddedToken("naïve <b>")])
back = [made.decode(made.encode(text).ids) for text in ("café", "naïve <b>", "Café")]
print(back)
assert back == ["caf\ufffd", "naïve <b>", "Café"], "decoding of added tokens has changed"
PY
echo "as it was found"
