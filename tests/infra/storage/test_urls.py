"""Reading, writing and listing under every kind of URL that needs no network."""

import http.server
import os
import stat
import threading
import uuid
import zipfile

import pytest

from infra import storage
from infra.errors import DataError, InfrastructureError, UserError

NAMES = ["a b.txt", "100%.txt", "50%20x.txt", "größe.txt", "中文/文.txt", "deep/er/x.txt", "br[ack]et.txt", "q?.txt"]


@pytest.fixture(params=["path", "file", "memory"])
def root(request, tmp_path) -> str:
    memory = f"memory://{uuid.uuid4().hex}"
    return {"path": str(tmp_path / "x y"), "file": f"file://{tmp_path}/x y", "memory": memory}[request.param]


def paths(url: str) -> list[str]:
    return [info.path for info in storage.list_files(url)]


def test_bytes_and_json_round_trip_under_any_name(root):
    for name in NAMES:
        storage.write_bytes(storage.join(root, name), name.encode())
    assert paths(root) == sorted(NAMES)
    for info in storage.list_files(root):
        assert storage.read_bytes(info.url) == info.path.encode()
        assert info.size == len(info.path.encode())
        assert info.version != ""
    value = {"name": "größe", "n": [1, 2.5, None]}
    storage.write_json(storage.join(root, "m.json"), value)
    assert storage.read_json(storage.join(root, "m.json")) == value


def test_existence_and_removal(root):
    url = storage.join(root, "d", "f")
    assert not storage.exists(url)
    storage.write_bytes(url, b"1")
    storage.write_bytes(url, b"2")
    assert storage.read_bytes(url) == b"2"
    assert storage.exists(url)
    assert storage.exists(storage.join(root, "d"))
    storage.remove_tree(storage.join(root, "d"))
    assert not storage.exists(url)
    storage.remove_tree(storage.join(root, "d"))


def test_listing_a_file_a_glob_and_nothing(root):
    for name in ["a/1.txt", "a/2.md", "b/c/3.txt", ".hidden", "a/.git/x.txt"]:
        storage.write_bytes(storage.join(root, name), b"x")
    assert paths(root) == ["a/1.txt", "a/2.md", "b/c/3.txt"]
    assert paths(storage.join(root, "a/2.md")) == ["2.md"]
    assert paths(storage.join(root, "a/*.txt")) == ["a/1.txt".removeprefix("a/")]
    assert paths(storage.join(root, "**/*.txt")) == ["a/1.txt", "b/c/3.txt"]
    for missing in ["none", "*.none"]:
        with pytest.raises(DataError, match="none"):
            storage.list_files(storage.join(root, missing))


def test_directories_travel_whole(root, tmp_path):
    there, back = tmp_path / "there", tmp_path / "back"
    for name in NAMES:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    storage.upload_dir(str(there), storage.join(root, "copy"))
    storage.download_dir(storage.join(root, "copy"), str(back))
    assert {str(f.relative_to(back)): f.read_text() for f in back.rglob("*.txt")} == {name: name for name in NAMES}
    with pytest.raises(DataError, match="nothing"):
        storage.download_dir(storage.join(root, "nothing"), str(back))


def test_writable_folders_are_left_as_they_were(root):
    storage.write_bytes(storage.join(root, "f"), b"")
    storage.ensure_writable(root)
    assert paths(root) == ["f"]


def test_what_is_listed_below_a_file_url_is_named_by_its_path(tmp_path):
    (tmp_path / "f").write_text("")
    for url in [str(tmp_path), f"file://{tmp_path}", f"file://{tmp_path}/f", f"file://{tmp_path}/*"]:
        assert [(info.url, info.path) for info in storage.list_files(url)] == [(f"{tmp_path}/f", "f")]


def test_a_version_changes_with_the_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("a")
    os.utime(path, ns=(1, 1))
    before = storage.list_files(str(tmp_path))
    os.utime(path, ns=(2, 2))
    assert before == [storage.FileInfo(str(path), "f", 1, "1")]
    assert storage.list_files(str(tmp_path)) == [storage.FileInfo(str(path), "f", 1, "2")]


def test_the_newest_of_several_is_the_one_that_changed_last(tmp_path):
    for name, age in (("a-1", 2), ("a-2", 3), ("a-3", 1), ("b", 4)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (age, age))
    assert storage.newest(f"{tmp_path}/a-*") == f"{tmp_path}/a-2"
    for url in (f"{tmp_path}/a-1", f"{tmp_path}/c-*", "s3://bucket/a-*", "my-run"):
        assert storage.newest(url) == url


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").write_text("x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "side").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    listed = storage.list_files(str(tmp_path))
    assert [(i.path, i.size) for i in listed] == [("a/f", 1), ("dangling", 0), ("self", 0), ("side/f", 1)]
    assert [i.path for i in storage.list_files(f"{tmp_path}/*")] == ["dangling", "self"]


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "f"
    storage.write_bytes(str(path), b"old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InfrastructureError, match="No space left on device"):
        storage.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_files_get_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        storage.write_bytes(str(tmp_path / "f"), b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for url in [f"{tmp_path}/file/below", "/proc/nowhere", "https://example.invalid/x"]:
        with pytest.raises(InfrastructureError) as caught:
            storage.ensure_writable(url)
        assert caught.value.exit_code == 5
        assert url in caught.value.message
        assert caught.value.why
        assert caught.value.try_
    assert "https:// is read-only" in str(caught.value)


def test_a_missing_driver_names_the_command_that_installs_it(monkeypatch):
    import sys

    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # there once any test has used it
    with pytest.raises(InfrastructureError, match=r"pip install -c constraints.txt -e '\.\[s3\]'"):
        storage.filesystem("s3://bucket/key")


def test_an_unknown_kind_of_url_is_named():
    with pytest.raises(UserError, match="unknown protocol 's33' in the URL s33://b/k; did you mean 's3'"):
        storage.exists("s33://b/k")


def test_json_that_is_none_is_named(tmp_path):
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(DataError, match=r"m\.json is not valid JSON"):
        storage.read_json(str(tmp_path / "m.json"))
    with pytest.raises(FileNotFoundError):
        storage.read_json(str(tmp_path / "none.json"))


def test_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert storage.absolute("runs/x") == f"{tmp_path}/runs/x"
    assert storage.absolute("~/x") == "/home/me/x"
    assert storage.absolute("file:///a b/x/") == storage.absolute("file:///a b/x") == "/a b/x"
    assert storage.absolute("s3://b/x") == "s3://b/x"
    assert storage.join("s3://b/x/", "y", "z/") == "s3://b/x/y/z"
    assert storage.join("memory://", "y") == "memory://y"
    assert storage.join("/", "y") == "/y"
    assert [storage.base_name(url) for url in ["a/b.c", "s3://b/k/", "file:///x y"]] == ["b.c", "k", "x y"]
    assert [storage.is_local(url) for url in ["x", "/x", "file:///x", "s3://x"]] == [True, True, True, False]


@pytest.mark.integration
def test_a_source_that_nobody_serves_is_named():
    for name in ["x.txt", "*.txt", ""]:
        url = f"http://127.0.0.1:9/{name}"
        with pytest.raises(InfrastructureError) as caught:
            storage.list_files(url)
        assert caught.value.message == f"cannot read {url}"
        assert "Connect call failed" in caught.value.why
        assert caught.value.try_ == "check the address, and that this machine can reach it"


@pytest.mark.integration
def test_https_reads_a_file(tmp_path):
    (tmp_path / "a b.txt").write_text("hello")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/a%20b.txt"
        assert storage.read_bytes(url) == b"hello"
        assert [(i.url, i.path, i.size) for i in storage.list_files(url)] == [(url, "a%20b.txt", 5)]
        server.shutdown()


def test_the_files_of_an_archive_have_chained_urls_and_its_age(tmp_path):
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("news/a.txt", "one")
        archive.writestr("news/b.md", "two")
    place = f"{tmp_path}/texts.zip"
    found = storage.list_files(f"zip://news/*.txt::{place}")
    assert [(info.url, info.path, info.size) for info in found] == [(f"zip://news/a.txt::{place}", "a.txt", 3)]
    assert storage.read_bytes(found[0].url) == b"one"
    assert [info.path for info in storage.list_files(f"zip://::{place}")] == ["news/a.txt", "news/b.md"]
    inside = storage.filesystem(found[0].url)[0]
    assert storage.filesystem(f"zip://news/b.md::{place}")[0] is inside, "its directory is read once"
    os.utime(place, (1, 1))
    assert storage.filesystem(found[0].url)[0] is not inside, "unless the archive has changed"
    assert storage.list_files(f"zip://news/*.txt::{place}")[0].version != found[0].version


def test_the_name_that_was_meant_is_told(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "mails.jsonl").write_text("{}\n")
    for given, meant in (("note", "notes"), ("Notes", "notes"), ("mails.json", "mails.jsonl")):
        with pytest.raises(DataError) as refused:
            storage.list_files(f"{tmp_path}/{given}")
        assert str(refused.value) == f"{tmp_path}/{given} does not exist\n  try: give {tmp_path}/{meant}"
    far = "check the spelling; relative paths start at the current directory"
    assert [storage.spelling(f"{tmp_path}/{name}") for name in ("books", "nowhere/notes")] == [far, far]
    assert storage.spelling("s3://bucket/note") == "check the spelling"
