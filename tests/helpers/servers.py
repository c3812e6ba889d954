"""Servers that tests start: S3 as moto plays it, and a proxy that is busy, or breaks off, when it is told to."""

import contextlib
import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

_BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """An empty S3 in a process of its own; yields its http:// address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 50
        while not _listens(port):
            assert process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.05)  # between looks at its socket
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to `upstream`, but for those that `trouble(number, request line)` gives a word for.

    "busy": answered 503. "cut": half of the answer's body, then the connection is closed. Counts are in `told`, and
    the bodies' bytes in `sent`.
    """

    daemon_threads = True

    def __init__(self, upstream: str, trouble: Callable[[int, str], str | None]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.trouble = upstream.removeprefix("http://"), trouble
        self.requests = self.sent = 0
        self.told: dict[str, int] = {"busy": 0, "cut": 0}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        pass  # clients leave when they have enough


@contextlib.contextmanager
def unreliable(upstream: str, trouble: Callable[[int, str], str | None]) -> Iterator[Proxy]:
    with Proxy(upstream, trouble) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests += 1
            word = self.server.trouble(self.server.requests, self.requestline)
            if word:
                self.server.told[word] += 1
        if word == "busy":
            self._answer(503, "Service Unavailable", {"Content-Length": str(len(_BUSY))}, _BUSY)
            return
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
        if self.command != "HEAD":
            headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
            headers["Content-Length"] = str(len(data))
        if word == "cut":
            self.close_connection = True
            data = data[: len(data) // 2]
        self._answer(answer.status, answer.reason, headers, data)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _answer(self, status: int, reason: str, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            with self.server.lock:
                self.server.sent += len(data)

    def log_message(self, format, *args) -> None:
        pass


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
