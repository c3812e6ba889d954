#!/usr/bin/env bash
# pyarrow 25.0.1: Parquet with a null in a column of fixed size lists is written without complaint and cannot be read.
#
# Vectors of one width, such as embeddings, ask for `list_(float32, 2)`, and a row without a vector for a null. Parquet
# stores lists of any length, and a null one has none; reading puts the width back from the stored Arrow schema and
# finds a list of 0. A list of null elements instead of a null list is read as written, and so is a column of lists of
# any length.
#
# Prints: a null list: ArrowInvalid, Expected all lists to be of size=2 / null elements: read / any length: read
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==25.0.1
venv/bin/python - <<'PYTHON'
import pyarrow as pa
from pyarrow import parquet


def read(values: list, kind: pa.DataType) -> str:
    table = pa.table({"vector": pa.array(values, kind)})
    parquet.write_table(table, "vectors.parquet")
    try:
        assert parquet.read_table("vectors.parquet").equals(table)
    except pa.ArrowInvalid as error:
        return f"{type(error).__name__}, {str(error)[:38]}"
    return "read"


fixed = pa.list_(pa.float32(), 2)
found = {
    "a null list": read([[1, 2], None], fixed),
    "null elements": read([[1, 2], [None, None]], fixed),
    "any length": read([[1, 2], None], pa.list_(pa.float32())),
}
print(found)
assert found == {
    "a null list": "ArrowInvalid, Expected all lists to be of size=2 but",
    "null elements": "read",
    "any length": "read",
}
PYTHON
