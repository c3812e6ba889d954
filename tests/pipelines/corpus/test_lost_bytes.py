"""Every byte is accounted for (law 11): where a file breaks off, what follows is counted, whatever its format."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from helpers import small

from infra.errors import DataError
from pipelines.corpus import ledger
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document, Rejected
from pipelines.selection import contamination
from pipelines.selection.config import EvaluationSet

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress}
PAGE = (
    "<page><title>T{0}</title><ns>0</ns><id>{0}</id><revision><text>Page {0} says that {1}.</text></revision></page>\n"
)


def read(path: Path, reader: str = "jsonl", **options) -> list[Document | Rejected]:
    (file,) = list_inputs([Source(reader, str(path), options=options)])
    return list(read_documents(file))


def json_lines(count: int, *, seed: int = 0) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in small.documents(count, seed=seed))


def dump(pages: int, *, broken: int | None = None) -> bytes:
    body = [PAGE.format(number, text) for number, text in enumerate(small.documents(pages))]
    if broken is not None:
        body[broken] = body[broken].replace("</revision>", "")
    return ("<mediawiki>\n" + "".join(body) + "</mediawiki>\n").encode()


@pytest.mark.parametrize("suffix", PACK)
def test_of_an_archive_that_is_cut_off_nobody_knows_how_much_is_missing_so_it_counts_whole(suffix, tmp_path):
    """Also in its second member, or frame."""
    packed = PACK[suffix](json_lines(300))
    for name, content in {"one": packed[: len(packed) // 2], "two": packed + packed[: len(packed) // 2]}.items():
        path = tmp_path / f"{name}.jsonl{suffix}"
        path.write_bytes(content)
        *kept, last = read(path)
        assert all(isinstance(record, Document) for record in kept)
        assert len(kept) >= (300 if name == "two" else 0) - 1
        assert isinstance(last, Rejected)
        assert (last.reason, last.lost) == ("truncated_archive", len(content))


@pytest.mark.parametrize("suffix", PACK)
def test_of_a_damaged_archive_what_follows_the_damage_is_lost(suffix, tmp_path):
    """Several members, each larger than what is decompressed at once; one in the middle is damaged."""
    members = [bytearray(PACK[suffix](json_lines(3000, seed=seed))) for seed in range(4)]
    members[2][:40] = b"x" * 40
    path = tmp_path / f"f.jsonl{suffix}"
    path.write_bytes(b"".join(members))
    size, good = path.stat().st_size, len(members[0]) + len(members[1])
    *kept, last = read(path)
    assert isinstance(last, Rejected)
    assert last.reason == "unreadable"
    assert 5000 < len(kept) < 6100
    assert size - good - 30_000 < (last.lost or 0) <= size - good + 30_000


def test_xml_that_is_malformed_in_the_middle_loses_the_rest(tmp_path):
    path = tmp_path / "dump.xml"
    path.write_bytes(dump(100, broken=40))
    *kept, last = read(path, "wikipedia")
    assert len(kept) == 40
    assert isinstance(last, Rejected)
    assert (last.offset, last.reason) == (path.read_bytes().index(b"<page><title>T40"), "malformed_xml")
    assert last.lost == path.stat().st_size - last.offset


def test_compressed_xml_loses_its_share(tmp_path):
    path = tmp_path / "dump.xml.bz2"
    content = dump(1000, broken=400)
    path.write_bytes(bz2.compress(content))
    *kept, last = read(path, "wikipedia")
    assert len(kept) == 400
    assert isinstance(last, Rejected)
    size = path.stat().st_size
    assert last.lost == size - size * last.offset // len(content)


def test_xml_that_ends_early_counts_whole(tmp_path):
    path = tmp_path / "dump.xml"
    path.write_bytes(dump(100)[:-200])
    *_, last = read(path, "wikipedia")
    assert isinstance(last, Rejected)
    assert (last.reason, last.lost) == ("truncated_xml", path.stat().st_size)


def test_damaged_parquet_loses_the_rows_that_follow(tmp_path):
    path = tmp_path / "f.parquet"
    sink = io.BytesIO()
    texts = [f"{text} {text[::-1]}" for text in small.documents(1000)]
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=100, use_dictionary=False, compression="zstd")
    data = bytearray(sink.getvalue())
    place = pq.ParquetFile(sink).metadata.row_group(4).column(0).data_page_offset
    data[place : place + 60] = b"\xff" * 60
    path.write_bytes(data)
    *kept, last = read(path, "parquet")
    assert len(kept) == 384, "rows are read 64 at a time"
    assert isinstance(last, Rejected)
    assert (last.reason, last.lost) == ("unreadable", len(data) * 616 // 1000)


@pytest.mark.parametrize(
    ("name", "reader", "content", "lost"),
    [
        ("utf16.txt", "text", "words".encode("utf-16"), 12),
        ("latin1.txt", "text", "déjà vu".encode("latin1") * 9, 63),
        ("string.jsonl", "jsonl", json.dumps("a" * 90).encode(), 92),
        ("other.csv", "csv", b"id,body\n1,words\n2,more words\n", 29),
        ("plain", "wikiextractor", b"No header and no end\n", 21),
        ("own.gz", "text", b"not gzip", 8),
        ("half.parquet", "parquet", b"PAR1 and no more", 16),
        ("empty.txt", "text", b"", 0),
        ("blank.jsonl", "jsonl", b"\n \n", 0),
    ],
)
def test_a_file_that_cannot_be_used_counts_by_its_bytes(name, reader, content, lost, tmp_path):
    (tmp_path / name).write_bytes(content)
    (record,) = read(tmp_path / name, reader)
    assert isinstance(record, Rejected)
    assert record.lost == lost


def test_of_malformed_lines_their_own_bytes_are_lost(tmp_path):
    good, bad = b'{"text": "a good line"}\n', b"{broken, and long\n"
    (tmp_path / "f.jsonl").write_bytes(good + bad + bad + good + bad)
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(good * 2000 + bad * 1000 + good * 2000, 0))
    assert [r.lost for r in read(tmp_path / "f.jsonl") if isinstance(r, Rejected)] == [len(bad)] * 3
    packed = sum(r.lost or 0 for r in read(tmp_path / "f.jsonl.gz") if isinstance(r, Rejected))
    assert packed == pytest.approx(1000 * len(bad), rel=0.02)  # of a file that gzip only stores


def sources(folder: Path, damaged: dict[str, bytes], reader: str = "jsonl"):
    """The unit of a source that holds these files and a good one, and the folder of its ledger."""
    raw = folder / "raw"
    raw.mkdir()
    for name, content in {"good.jsonl": json_lines(300), **damaged}.items():
        (raw / name).write_bytes(content)
    files = list_inputs([Source(reader, str(raw), name="corpus")])
    return small.clean_unit(files, CleanConfig(), f"{folder}/text/unit"), f"{folder}/text"


def test_more_lost_bytes_than_the_limit_are_refused_with_file_and_byte(tmp_path):
    cut = gzip.compress(json_lines(3000))[:-5000]
    unit, text = sources(tmp_path, {"cut.jsonl.gz": cut})
    assert unit.lost == {"truncated_archive": len(cut)}
    assert unit.stored_bytes == sum(file.stat().st_size for file in (tmp_path / "raw").iterdir())
    (entry,) = [
        e for e in ledger._read(f"{text}/unit.ledger.parquet").to_pylist() if e["reason"] == "truncated_archive"
    ]
    with pytest.raises(DataError) as error:
        ledger.check_malformed([unit], text, limit=0.01)
    assert str(error.value).splitlines() == [
        f"the source 'corpus' is damaged: {len(cut):,} of {unit.stored_bytes:,} bytes of its files are lost, more than "
        "data.max_malformed=0.01 allows",
        f"  why: {tmp_path}/raw/cut.jsonl.gz at byte {entry['offset']}: truncated_archive, the compressed data ends "
        f"before its end mark ({len(cut):,} bytes are lost)",
        "  try: mend or remove these files, or accept the loss: --data.max_malformed=1 (what was read is kept)",
    ]
    assert error.value.exit_code == 3
    ledger.check_malformed([unit], text, limit=1)


def test_lost_bytes_up_to_the_limit_are_told_and_pass(tmp_path):
    unit, text = sources(tmp_path, {"bad.jsonl.gz": b"not gzip"})
    ledger.check_malformed([unit], text, limit=0.01)
    assert ledger.describe_losses([unit, small.unit("other")], text) == [
        f"8 of {unit.stored_bytes:,} bytes of the files of 'corpus' are lost: {tmp_path}/raw/bad.jsonl.gz at byte 0: "
        "unreadable, error: Error -3 while decompressing data: incorrect header check (8 bytes are lost)"
    ]
    (source,) = ledger.balance([unit]).sources
    assert (source.lost, source.stored_bytes) == ({"unreadable": 8}, unit.stored_bytes)


def test_a_part_of_an_evaluation_set_that_cannot_be_read_is_an_error(tmp_path):
    """Or text that it holds would pass for clean."""
    (tmp_path / "set.jsonl.gz").write_bytes(gzip.compress(json_lines(300))[:-400])
    with pytest.raises(DataError, match="cannot be read: documents that share it would be kept"):
        contamination.read_entries([EvaluationSet("jsonl", str(tmp_path))])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_files_under_another_name_says_how_its_files_are_read(kind, tmp_path):
    path = tmp_path / "all.bin"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "words")
    else:
        path.write_bytes(
            b"a.txt".ljust(257, b"\0") + b"ustar\0" + b"00".ljust(249, b"\0") + b"words".ljust(1536, b"\0")
        )
    (record,) = read(path, "text")
    assert isinstance(record, Rejected)
    assert record.detail.endswith(f"as the url of a source, with a name that ends in .{kind}")


@pytest.mark.parametrize("suffix", PACK)
def test_what_follows_the_end_of_the_compressed_data_is_lost_and_all_before_it_is_read(suffix, tmp_path):
    """A signature, a note: gunzip leaves it out too. Where the text ends inside a line, that may have gone on."""
    path = tmp_path / f"f.jsonl{suffix}"
    packed, rest = PACK[suffix](json_lines(300)), b"-- appended by a mail program --"
    path.write_bytes(packed + rest)
    *kept, last = read(path)
    assert (len(kept), {type(one) for one in kept}) == (300, {Document})
    assert isinstance(last, Rejected)
    assert (last.reason, last.lost, last.offset) == ("trailing_bytes", len(rest), len(json_lines(300)))
    path.write_bytes(PACK[suffix](json_lines(300)[:-1]) + rest)
    *kept, last = read(path)
    assert (len(kept), last.reason) == (299, "unreadable")


def test_a_damaged_file_in_a_zip_is_lost_and_others_are_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, text in enumerate(small.documents(3)):
            archive.writestr(f"{number}.txt", text)
    content = path.read_bytes()
    path.write_bytes(content.replace(small.documents(3)[1].encode(), b"x" * len(small.documents(3)[1])))
    files = list_inputs([Source("text", f"zip://*.txt::{path}")])
    first, damaged, last = (record for file in files for record in read_documents(file))
    assert (type(first), type(last)) == (Document, Document)
    assert isinstance(damaged, Rejected)
    assert (damaged.reason, damaged.lost) == ("unreadable", files[1].size)
    assert "Bad CRC-32" in damaged.detail


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar", "cut.tar.gz"])
def test_an_archive_whose_files_cannot_be_listed_is_an_error_of_the_data(name, tmp_path):
    path, kind = tmp_path / name, name.split(".")[1]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "words " * 500)
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            (tmp_path / "a.txt").write_text("".join(small.documents(30)))
            archive.add(tmp_path / "a.txt", "a.txt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot be listed(.|\n)*replace this archive"):
        list_inputs([Source("text", f"{kind}://*.txt::{path}")])


def test_a_tar_that_was_made_of_a_folder_itself_is_listed(tmp_path):
    """Its names begin with ./, as `tar cf a.tar -C folder .` writes them."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("one")
    (tmp_path / "in" / "sub" / "b.txt").write_text("two")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    for pattern, paths in {"*.txt": ["a.txt"], "**/*.txt": ["a.txt", "sub/b.txt"]}.items():
        files = list_inputs([Source("text", f"tar://{pattern}::{tmp_path}/a.tar")])
        assert [file.path for file in files] == paths
        assert all(isinstance(record, Document) for file in files for record in read_documents(file))


def test_a_link_that_leads_nowhere_counts_like_the_other_files(tmp_path):
    for number, count in enumerate((10, 30)):
        (tmp_path / f"{number}.jsonl").write_bytes(json_lines(count))
    (tmp_path / "z.jsonl").symlink_to(tmp_path / "nowhere")
    *_, link = list_inputs([Source("jsonl", str(tmp_path))])
    (record,) = read_documents(link)
    assert isinstance(record, Rejected)
    assert (record.reason, record.lost) == ("vanished", len(json_lines(10) + json_lines(30)) // 2)
