#!/usr/bin/env bash
# tokenizers 0.23.3: a BPE model without an unknown token drops the characters that it does not know, without an error,
# and from there on to the end of the word its offsets are wrong.
#
# A good guess is that it raises, as WordPiece, WordLevel and Unigram do, or that the offsets of what is left tell which
# characters are missing. Neither holds: in "ab☃cd" the tokens c and d both claim the place of the snowman, so counting
# the characters that no token covers finds c and d instead. What is lost has to be told from the vocabulary.
#
# Output seen:
#   0.23.3
#   BPE ['a', 'b', 'c', 'd'] [(0, 1), (1, 2), (2, 3), (2, 3)]
#   BPE with an unknown token ['a', 'b', '?', 'c', 'd'] [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
#   WordPiece WordPiece error: Missing [UNK] token from the vocabulary
#   WordLevel WordLevel error: Missing [UNK] token from the vocabulary
#   Unigram Encountered an unknown token but `unk_id` is missing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
cat > "$folder/check.py" <<'PYTHON'
import tokenizers
from tokenizers import Tokenizer, models

TEXT = "ab☃cd"
vocab = {character: id_ for id_, character in enumerate("abcd?")}
silent = Tokenizer(models.BPE(vocab, [])).encode(TEXT)
print(tokenizers.__version__)
print("BPE", silent.tokens, silent.offsets)
told = Tokenizer(models.BPE(vocab, [], unk_token="?")).encode(TEXT)
print("BPE with an unknown token", told.tokens, told.offsets)
assert silent.tokens == ["a", "b", "c", "d"]
assert silent.offsets == [(0, 1), (1, 2), (2, 3), (2, 3)], "c stands at (3, 4), d at (4, 5)"
assert told.offsets == [(i, i + 1) for i in range(5)]
others = {
    "WordPiece": models.WordPiece({"a": 0}, unk_token="[UNK]"),
    "WordLevel": models.WordLevel({"a": 0}, unk_token="[UNK]"),
    "Unigram": models.Unigram([("a", 0.0)]),
}
for name, model in others.items():
    try:
        tokens = Tokenizer(model).encode(TEXT).tokens
    except Exception as error:
        print(name, error)
    else:
        raise AssertionError(f"{name} gave {tokens}")
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
