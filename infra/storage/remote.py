"""Files on other machines: which errors are transient, how often to retry, and what to tell the user in the end.

S3 and GCS drivers retry by themselves; https:// is retried here. What still fails is an InfrastructureError (the same
command may succeed later), never a verdict on the data. FileNotFoundError alone reaches callers who ask for it.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from infra.errors import InfrastructureError, UserError

# With waits of 1/4 s to 8 s between them: enough for a server that restarts, or a bucket that limits requests.
ATTEMPTS = 7
_REFUSED_ATTEMPTS = 3  # nobody listens, no such host: more often a wrong address than a server that comes back
_BUSY = {408, 429, 500, 502, 503, 504}
_BLOCK = 1 << 22  # bytes of a request: a range of a file costs little more than its size, and 4 MiB hide a round trip
_STALLED_SECONDS = 60

T = TypeVar("T")


class Damaged(OSError):
    """An archive whose files cannot be read, on whatever machine it is."""


class Unreachable(Exception):
    """A server that failed at every attempt. Neither an OSError nor an error of aiohttp: fsspec would report those as a
    missing file.
    """


def driver_options(protocol: str) -> dict[str, Any]:
    """Options of fsspec's filesystem for URLs of this protocol."""
    options: dict[str, Any] = {"use_listings_cache": False}  # a cached listing would hide what another process wrote
    if protocol in ("http", "https"):
        import aiohttp

        # aiohttp's own limit is 5 minutes for a whole download, and none for a connection that has stalled.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_STALLED_SECONDS, sock_read=_STALLED_SECONDS)
        options["client_kwargs"] = {"middlewares": (_retry_request,), "timeout": timeout}
    return options


def retry(call: Callable[[], T]) -> T:
    """The result of `call`, which is repeated after transient errors."""
    import tenacity

    return tenacity.Retrying(**_policy())(call)


@contextlib.contextmanager
def translate_errors(verb: str, url: str, *, keep_absent: bool = False) -> Iterator[None]:
    """Turn what a driver raises into an InfrastructureError: "cannot read s3://..."; verb: read, write, remove.

    keep_absent: a FileNotFoundError stays one if there is no such file. (https:// raises it for every failure.) A file
    in an archive that is damaged raises Damaged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as exc:
        if keep_absent and _is_absent(exc):
            raise
        if _is_damage(exc):
            raise Damaged(f"{type(exc).__name__}: {exc}") from exc
        cause = exc.__cause__ if isinstance(exc, FileNotFoundError) and isinstance(exc.__cause__, Unreachable) else exc
        why = str(cause) if isinstance(cause, Unreachable) else f"{type(cause).__name__}: {cause}"
        if isinstance(cause, OSError) and cause.strerror:
            why = cause.strerror
        if url.startswith(("http://", "https://")) and verb == "write":
            why = "https:// is read-only"
        raise InfrastructureError(f"cannot {verb} {url}", why=why, try_=_remedy(cause, verb, url)) from exc


def open_remote(fs: Any, path: str, url: str, *, block_bytes: int | None = None) -> io.BufferedReader:
    """A seekable stream of a file, fetched block_bytes at a time (4 MiB). Transient errors are retried."""
    with translate_errors("read", url, keep_absent=True):
        return io.BufferedReader(_RemoteFile(fs, path, url, block_bytes or _BLOCK), buffer_size=1 << 18)


def open_ranges(fs: Any, path: str, url: str) -> io.RawIOBase:
    """A file in which each read is one request for exactly its bytes: for readers that know their ranges."""
    with translate_errors("read", url, keep_absent=True):
        return _RemoteFile(fs, path, url, _BLOCK, cache_type="none")


class _RemoteFile(io.RawIOBase):
    """A file of fsspec that survives broken connections; from servers without ranges it is read from the start."""

    def __init__(self, fs: Any, path: str, url: str, block_bytes: int, **options: Any):
        self._fs, self._path, self._url = fs, path, url
        self._file = fs.open(path, "rb", block_size=block_bytes, **options)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._size is not None:
            return self._file.seek(offset, whence)
        if whence != io.SEEK_SET or offset < self.tell():
            raise io.UnsupportedOperation(f"the server of {self._url} sends whole files only: download it first")
        self._skip_to(offset)
        return offset

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        with translate_errors("read", self._url, keep_absent=True):
            data = self._read(len(buffer))
            if not data and self._size is not None and self.tell() < self._size:
                raise OSError(f"it ends at byte {self.tell():,} of {self._size:,}: it changed while it was being read")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    @property
    def _size(self) -> int | None:
        """None for a stream that cannot seek back: what is lost on the way cannot be requested again."""
        return getattr(self._file, "size", None)

    def _read(self, count: int) -> bytes:
        if self._size is None:
            return self._file.read(count)
        try:
            return retry(lambda: self._file.read(count))
        except ValueError:  # from fsspec's HTTPFile, when the server answers a range with the whole file
            if not self._url.startswith("http"):
                raise
            offset = self.tell()
            self._file.close()
            self._file = self._fs.open(self._path, "rb", block_size=0)
            self._skip_to(offset)
            return self._file.read(count)

    def _skip_to(self, offset: int) -> None:
        while (left := offset - self.tell()) > 0 and self._file.read(min(left, _BLOCK)):
            pass


async def _retry_request(request: Any, handler: Any) -> Any:
    """A middleware of aiohttp that repeats a request while the server is busy or away."""
    import tenacity

    try:
        async for attempt in tenacity.AsyncRetrying(**_policy()):
            with attempt:
                answer = await handler(request)
                if answer.status in _BUSY:
                    answer.close()
                    raise ConnectionError(f"{answer.status} {answer.reason}")
                return answer
    except Exception as exc:
        if not _is_transient(exc):
            raise
        raise Unreachable(f"{exc} (after {ATTEMPTS} attempts)" if type(exc) is ConnectionError else f"{exc}") from exc


def _policy() -> dict[str, Any]:
    import aiohttp
    import tenacity

    def is_last(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        refused = isinstance(error, aiohttp.ClientConnectorError)
        return state.attempt_number >= (min(_REFUSED_ATTEMPTS, ATTEMPTS) if refused else ATTEMPTS)

    return {
        "retry": tenacity.retry_if_exception(_is_transient),
        "stop": is_last,
        "wait": tenacity.wait_exponential_jitter(multiplier=0.25, max=20, jitter=0.25),
        "reraise": True,
    }


def _is_transient(error: BaseException) -> bool:
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _BUSY
    kinds = (ConnectionError, TimeoutError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
    return isinstance(error, kinds)


def _is_absent(error: BaseException) -> bool:
    """Whether there is no such file. Over https:// fsspec turns every failure of a first request into
    FileNotFoundError, whose cause is the failure.
    """
    if not isinstance(error, FileNotFoundError) or isinstance(error.__cause__, Unreachable):
        return False
    return getattr(error.__cause__, "status", 404) in (404, 410)


def _is_damage(error: BaseException) -> bool:
    import tarfile
    import zipfile

    return isinstance(error, zipfile.BadZipFile | tarfile.TarError | zlib.error | lzma.LZMAError | EOFError | Damaged)


def _remedy(error: BaseException, verb: str, url: str) -> str:
    over_http = url.startswith(("http://", "https://"))
    if over_http and verb == "write":
        return "write to a local path, s3:// or gs://"
    if over_http:
        return "check the address, and that this machine can reach it"
    if "://" not in url or url.startswith("file://"):
        return "choose a folder that you own and that has space left"
    if "redentials" in type(error).__name__ and url.startswith("s3"):
        return "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., on every node of the cluster"
    if isinstance(error, PermissionError):
        return "use other credentials, or give these the right to use the bucket"
    if isinstance(error, FileNotFoundError):
        return "check the name of the bucket: it must exist"
    return "check the credentials, and that the bucket exists; then run the same command again"
