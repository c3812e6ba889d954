#!/usr/bin/env bash
# zstandard 0.25.0 reads a .zst file that is cut off as a shorter file: `stream_reader(file).read()` returns what came
# before the cut, or b"", and raises nothing. With read_across_frames=True, a cut in the second frame gives the first one
# alone. backports.zstd 1.8.0 (compression.zstd of Python 3.14, for earlier ones) raises EOFError in both cases.
#
# Output seen:
#   zstandard: half of a frame -> 0 of 9000 bytes; a frame and a half -> 9000 of 18000; no error
#   backports.zstd: half of a frame -> EOFError; a frame and a half -> EOFError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zstandard==0.25.0 "backports.zstd==1.8.0; python_version < '3.14'"
"$folder/venv/bin/python" - <<'PYTHON'
import io
import random
import sys

import zstandard

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

text = random.Random(0).randbytes(3000) * 3
frame = zstandard.ZstdCompressor().compress(text)
cut, second = frame[: len(frame) // 2], frame + frame[: len(frame) // 2]

found = [
    len(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read())
    for data in (cut, second)
]
print(f"zstandard: half of a frame -> {found[0]} of 9000 bytes; a frame and a half -> {found[1]} of 18000; no error")

told = []
for data in (cut, second):
    try:
        zstd.ZstdFile(io.BytesIO(data)).read()
        told.append("no error")
    except EOFError:
        told.append("EOFError")
print(f"backports.zstd: half of a frame -> {told[0]}; a frame and a half -> {told[1]}")
sys.exit(0 if (found, told) == ([0, 9000], ["EOFError", "EOFError"]) else 1)
PYTHON
