"""Archives as sources: named by themselves, by a glob, or by a URL that names the files inside."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.small import clean_unit

from infra.errors import DataError
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.corpus.units import around_path
from pipelines.document import Document

TEXTS = {
    "z.txt": "the last",
    "sub/a b.txt": "one",
    "b.jsonl": json.dumps({"text": "a line"}) + "\n",
    "sub/._a.txt": "x",
    "__MACOSX/sub/._z.txt": "x",
}


def pack(path: Path, texts: dict[str, str] = TEXTS, *, prefix: str = "") -> None:
    """An archive of the kind that its name says. prefix: of its names, such as ./"""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
        return
    codec = {".tar": "", ".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz", ".txz": "xz"}[path.suffix]
    with tarfile.open(path, f"w:{codec}") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


def read(url: Path | str, reader: str = "text", **options) -> dict[str, list]:
    """Path -> texts, or reasons."""
    files = list_inputs([Source(reader, str(url), options=options)])
    return {f.path: [d.text if isinstance(d, Document) else d.reason for d in read_documents(f)] for f in files}


@pytest.mark.parametrize(
    "name", ["a.zip", "a.tar", "A.TAR.GZ", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.txz", "a [v2].zip"]
)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_archive_that_is_named_by_itself_is_read_as_a_folder_would_be(name, prefix, tmp_path):
    made = tmp_path / name.lower()
    pack(made, prefix=prefix)
    made.rename(tmp_path / name)
    texts = {"sub/a b.txt": ["one"], "z.txt": ["the last"]}
    assert read(tmp_path / name) == texts
    assert read(tmp_path / name, "jsonl") == {"b.jsonl": ["a line"]}
    protocol = "zip" if name.endswith("zip") else "tar"
    assert read(f"{protocol}://**/*.txt::{tmp_path / name}") == texts
    assert read(f"{protocol}://sub/*.txt::{tmp_path / name}") == {"a b.txt": ["one"]}


def test_archives_that_a_glob_names_are_read_by_their_names(tmp_path):
    pack(tmp_path / "1.zip", {"a.txt": "one"})
    pack(tmp_path / "2.zip", {"a.txt": "two", "in/b.txt": "three"})
    (tmp_path / "c.txt").write_text("beside")
    assert read(tmp_path / "*.zip") == {"1.zip/a.txt": ["one"], "2.zip/a.txt": ["two"], "2.zip/in/b.txt": ["three"]}
    files = list_inputs([Source("text", f"{tmp_path}/*.zip")])
    assert [around_path(file) for file in files] == [(f"{tmp_path}/", "")] * 3
    (one,) = list_inputs([Source("text", f"{tmp_path}/1.zip")])
    assert around_path(one) == ("zip://", f"::{tmp_path}/1.zip")


def test_an_archive_in_a_folder_is_not_opened(tmp_path):
    """What is in it may lie beside it."""
    pack(tmp_path / "all.zip", {"c.txt": "beside"})
    (tmp_path / "c.txt").write_text("beside")
    assert read(tmp_path) == {"c.txt": ["beside"]}


def test_files_of_a_compressed_tar_are_read_in_its_order(tmp_path):
    """Going back in it means to decompress it again from its start."""
    texts = {f"{number * 7 % 20:02}.txt": f"text {number}" for number in range(20)}
    pack(tmp_path / "a.tar.gz", texts)
    assert list(read(tmp_path / "a.tar.gz")) == list(texts)
    assert list(read(f"tar://*.txt::{tmp_path}/a.tar.gz")) == list(texts)


def test_parquet_inside_an_archive_is_read(tmp_path):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["p", "q"]}), sink)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.parquet", sink.getvalue())
    assert read(tmp_path / "a.zip", "parquet") == {"a.parquet": ["p", "q"]}


def test_an_archive_without_a_file_to_read_says_what_is_in_it(tmp_path):
    pack(tmp_path / "a.zip", {"a.pdf": "x", "b.pdf": "y"})
    with pytest.raises(DataError, match="2 other files are there"):
        read(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"cannot be listed(.|\n)*replace this archive"):
        read(tmp_path / "b.zip")


def test_documents_of_archives_have_places(tmp_path):
    pack(tmp_path / "a.zip", {"in/a.txt": "a text that is long enough to be kept"})
    files = list_inputs([Source("text", str(tmp_path / "a.zip"))])
    unit = clean_unit(files, CleanConfig(), str(tmp_path / "out" / "unit"))
    assert (unit.kept, unit.around) == (1, ("zip://", f"::{tmp_path}/a.zip"))
    assert os.path.exists(tmp_path / "out")
