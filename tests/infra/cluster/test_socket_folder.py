"""Paths of sockets are short, wherever temporary files are to lie."""

import os
import socket

import pytest

from infra.cluster.connect import socket_folder


@pytest.fixture(autouse=True)
def no_setting(monkeypatch):
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def path_in(folder: str) -> str:
    return f"{folder}/ray/session_2026-01-31_12-59-59_123456_1234567/sockets/plasma_store"


def test_ray_keeps_its_own_folder_where_sockets_fit():
    assert socket_folder() is None


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_temporary_folder_is_replaced_by_a_short_one(name, tmp_path, monkeypatch):
    for length in (38, 39, 90):
        folder = "/" + "x" * (length - 1)
        monkeypatch.setenv(name, folder)
        with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match=r"too long|No such file") as caught:
            one.bind(path_in(folder))
        too_long = "too long" in str(caught.value)
        assert (socket_folder(["/nowhere", str(tmp_path)]) is not None) == too_long
    assert socket_folder(["/nowhere", str(tmp_path)]) == f"{tmp_path}/ray-{os.getuid()}"
    assert socket_folder(["/nowhere"]) is None
