#!/usr/bin/env bash
# SQLAlchemy 2.1.9 percent-decodes the path of an sqlite:/// URL, and ends it at a question mark: a path that is put
# behind sqlite:/// as it is may name another file. %25 and %3F in their place name the right one.
#
# Output seen:
#   sqlite:////data/50%20x/a.db -> /data/50 x/a.db
#   sqlite:////data/b?c/a.db -> /data/b
#   sqlite:////data/50%2520x/b%3Fc/a.db -> /data/50%20x/b?c/a.db
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q SQLAlchemy==2.1.9
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from sqlalchemy import make_url

expected = {
    "sqlite:////data/50%20x/a.db": "/data/50 x/a.db",
    "sqlite:////data/b?c/a.db": "/data/b",
    "sqlite:////data/50%2520x/b%3Fc/a.db": "/data/50%20x/b?c/a.db",
}
found = {url: make_url(url).database for url in expected}
for url, place in found.items():
    print(url, "->", place)
sys.exit(0 if found == expected else 1)
PYTHON
