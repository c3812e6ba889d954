#!/usr/bin/env bash
# fsspec 2026.9.0: a tar file is decompressed by the ending of its name, and .tgz, .tbz2 and .txz are not known to it.
#
# A good guess is that tar://member::/my/texts.tgz reads what tar://member::/my/texts.tar.gz does: Python's tarfile, on
# which it stands, tells a compression by the first bytes, and all tools write either name. But tarfile is handed the
# compressed bytes as they are, and says "truncated header" of a file that is whole. The compression has to be named:
# tar={"compression": "gzip"}.
#
# Output seen:
#   2026.9.0
#   texts.tar.gz b'hello' tgz ReadError: truncated header | named b'hello'
#   texts.tar.bz2 b'hello' tbz2 ReadError: truncated header | named b'hello'
#   texts.tar.xz b'hello' txz ReadError: truncated header | named b'hello'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0
cat > "$folder/check.py" <<'PYTHON'
import io
import shutil
import sys
import tarfile
from pathlib import Path

import fsspec

print(fsspec.__version__)


def read(path: Path, **options) -> bytes:
    with fsspec.open(f"tar://a.txt::{path}", "rb", **options) as file:
        return file.read()


for mode, name, short in (("gz", "gzip", "tgz"), ("bz2", "bz2", "tbz2"), ("xz", "xz", "txz")):
    long = Path(sys.argv[1], f"texts.tar.{mode}")
    with tarfile.open(long, f"w:{mode}") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    same = long.with_name(f"texts.{short}")
    shutil.copy(long, same)
    with tarfile.open(same) as archive:
        assert archive.getnames() == ["a.txt"], "tarfile reads it under either name"
    try:
        said = str(read(same))
    except tarfile.ReadError as error:
        said = f"ReadError: {error}"
    named = read(same, tar={"compression": name})
    print(long.name, read(long), short, said, "| named", named)
    assert said == "ReadError: truncated header"
    assert read(long) == named == b"hello"
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
