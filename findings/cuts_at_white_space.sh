#!/usr/bin/env bash
# tokenizers 0.23.3: a text cut before white space, or behind a sentence end, is not always the same words to GPT-2's and
# BERT's pre-tokenizers, though both are said to see each word by itself.
#
# ByteLevel takes a run of white space as one word up to its last character, which the next word takes if it is a space:
# a run may be cut at its first character and before its last one, and nowhere between. The full stop of Chinese and the
# quotation mark behind it are one word. BertNormalizer removes \x0b, \x0c, \x1c to \x1f and \x85, which Python's
# str.split() and \s take for white space: the words around them become one. Only U+2028 and its like are spaces to both.
#
# Output seen:
#   0.23.3
#   GPT-2 'a' | '\n\n\nb'   same words: True
#   GPT-2 'a\n' | '\n\nb'   same words: False
#   GPT-2 'a\n\n' | '\nb'   same words: True
#   GPT-2 'a \n' | '\n'   same words: False
#   GPT-2 '天。' | '”地'   same words: False
#   GPT-2 '天。' | '地'   same words: True
#   BERT 'a' | '\x85b'   same words: False
#   BERT 'a' | '\x1cb'   same words: False
#   BERT 'a' | '\u2028b'   same words: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
cat > "$folder/check.py" <<'PYTHON'
import tokenizers
from tokenizers import normalizers, pre_tokenizers

gpt2, bert, normalizer = pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()
KINDS = {
    "GPT-2": lambda text: [word for word, _ in gpt2.pre_tokenize_str(text)],
    "BERT": lambda text: [word for word, _ in bert.pre_tokenize_str(normalizer.normalize_str(text))],
}
CUTS = [
    ("GPT-2", "a", "\n\n\nb", True),
    ("GPT-2", "a\n", "\n\nb", False),
    ("GPT-2", "a\n\n", "\nb", True),
    ("GPT-2", "a \n", "\n", False),
    ("GPT-2", "天。", "”地", False),
    ("GPT-2", "天。", "地", True),
    ("BERT", "a", "\x85b", False),
    ("BERT", "a", "\x1cb", False),
    ("BERT", "a", "\u2028b", True),
]
print(tokenizers.__version__)
for kind, left, right, expected in CUTS:
    words = KINDS[kind]
    same = words(left) + words(right) == words(left + right)
    print(kind, repr(left), "|", repr(right), "  same words:", same)
    assert same == expected
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
