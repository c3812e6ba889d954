"""Files that hold files, zip and tar, by way of fsspec: those inside have URLs such as zip://news/a.txt::/my/texts.zip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_TAR_CODECS: dict[str, str | None] = {
    **{".tar": None, ".tar.gz": "gzip", ".tar.bz2": "bz2", ".tar.xz": "xz", ".tar.zst": "zstd"},
    **{".tgz": "gzip", ".tbz": "bz2", ".tbz2": "bz2", ".txz": "xz"},
}


def protocol_of(url: str) -> str | None:
    """zip or tar, as the file's name ends; None if it is not that of an archive."""
    if url.lower().endswith(".zip"):
        return "zip"
    return "tar" if url.lower().endswith(tuple(_TAR_CODECS)) else None


def open_archive(protocol: str, stream: BinaryIO, url: str) -> AbstractFileSystem:
    """The files in an archive, zip or tar, which `stream` reads; url: its name tells how a tar is compressed."""
    import fsspec

    codec = next((codec for ending, codec in _TAR_CODECS.items() if url.lower().endswith(ending)), None)
    options: dict[str, Any] = {"compression": codec} if protocol == "tar" else {}
    # Given a name, fsspec would take brackets in it for a glob.
    return fsspec.filesystem(protocol, fo=stream, skip_instance_cache=True, **options)


def in_order(fs: AbstractFileSystem, names: list[str]) -> list[str]:
    """Names of files in the order in which they stand in a tar, others sorted: a compressed tar is read forward, and
    going back in it begins at its start.
    """
    index: Any = getattr(fs, "index", ())
    place = {name: number for number, name in enumerate(index)}
    return sorted(names, key=lambda name: (place.get(name, 0), name))
