"""A name that is there means itself, whatever is in it: brackets, wildcards, %20, #, quotes. Only then is it a glob."""

import os
import uuid

import pytest

from glm_model import urls
from infra import storage
from infra.storage import local

ODD = ["texts [v2]", "50% #1 a+b?c=d", "50%20x", 'it\'s "x"', "star*", "a::b", "[!a]", "$HOME;x"]


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def fill(root: str, *names: str) -> None:
    for name in names:
        storage.write_bytes(storage.join(root, name), name.encode())


def found(url: str) -> list[tuple[str, str]]:
    """(path, content) of each file that a listing has."""
    return [(info.path, storage.read_bytes(info.url).decode()) for info in storage.list_files(url)]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_a_glob_in_it_and_a_file_are_listed(name, root):
    if name == "a::b" and not storage.is_local(root):
        pytest.skip("in URLs :: stands before an archive")
    fill(root, f"{name}/x.txt", f"{name}/sub/y.txt", f"{name}/z.md", "texts v/no.txt", "stars/no.txt", "b/no.txt")
    place = storage.join(root, name)
    texts = [("sub/y.txt", f"{name}/sub/y.txt"), ("x.txt", f"{name}/x.txt")]
    assert found(place) == [*texts, ("z.md", f"{name}/z.md")]
    assert found(f"{place}/*.txt") == texts[1:]
    assert found(f"{place}/**/*.txt") == texts
    assert found(f"{place}/x.txt") == texts[1:]
    assert found(f"{place}/s*/[y].txt") == texts[:1]


def test_a_pattern_that_is_nobodys_name_is_a_glob(root):
    fill(root, "v1/a.txt", "v2/a.txt", "v3/a.txt")
    assert [path for path, _ in found(storage.join(root, "v[12]/*.txt"))] == ["v1/a.txt", "v2/a.txt"]
    fill(root, "v[12]/own.txt")
    assert [path for path, _ in found(storage.join(root, "v[12]/*.txt"))] == ["own.txt"]


def check_removal(root: str) -> None:
    fill(root, "x[1]/a", "x1/a", "y*/a", "y2/a", "z?", "z3")
    for name in ("x[1]", "y*", "z?", "nothing[1]"):
        storage.remove_tree(storage.join(root, name))
    assert [path for path, _ in found(root)] == ["x1/a", "y2/a", "z3"]


def test_only_what_has_the_name_is_removed(root):
    check_removal(root)


@pytest.mark.integration
def test_on_s3_names_mean_themselves_too(s3):
    root = storage.join(s3, uuid.uuid4().hex)
    check_removal(root)
    fill(root, "texts [v2]/x.txt", "texts v/no.txt", "50% #1 a+b?c=d/x.txt")
    assert found(f"{root}/texts [v2]/*.txt") == [("x.txt", "texts [v2]/x.txt")]
    assert found(f"{root}/50% #1 a+b?c=d/*.txt") == [("x.txt", "50% #1 a+b?c=d/x.txt")]


def test_the_newest_of_several_runs_lies_in_an_odd_folder_too(tmp_path):
    for number, name in enumerate(["runs [a]/x-1", "runs [a]/x-2", "runs a/x-3"]):
        (tmp_path / name).mkdir(parents=True)
        os.utime(tmp_path / name, (number, number))
    assert storage.newest(f"{tmp_path}/runs [a]/x-*") == f"{tmp_path}/runs [a]/x-2"
    assert storage.newest(f"{tmp_path}/runs [a]/x-1") == f"{tmp_path}/runs [a]/x-1"
    assert storage.newest(f"{tmp_path}/none-*") == f"{tmp_path}/none-*"
    assert storage.newest("s3://bucket/x-*") == "s3://bucket/x-*"


@pytest.mark.parametrize("name", ODD)
def test_model_files_have_odd_places(name, tmp_path):
    url = urls.join(f"{tmp_path}/{name}", "config.json")
    urls.write_json(url, {"a": 1})
    assert urls.read_json(url) == {"a": 1}
    assert urls.names(f"{tmp_path}/{name}") == ["config.json"]
    assert (tmp_path / name / "config.json").exists()


def test_a_glob_is_split_behind_the_last_name_that_is_there():
    there = {"/a/[x]", "/a/[x]/b"}.__contains__
    assert local.split_glob("/a/[x]/b/*.txt", there) == ("/a/[x]/b", "/*.txt")
    assert local.split_glob("/a/[x]/[b]/c?/d", there) == ("/a/[x]", "/[b]/c?/d")
    assert local.split_glob("/a/[x]/b", there) == ("/a/[x]/b", "")
    assert local.split_glob("*.txt", there) == ("", "*.txt")
