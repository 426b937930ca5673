"""A server with the public archive's layout on a real socket, and the faults that networks and archives have."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ArchiveServer:
    """Files by path, and for a path a queue of faults, each of which spoils one answer.

    Faults: an HTTP status such as `503`, `"429 after 7"`, `"cut 1000"` (the body stops there), `"stall 1000"` (it stops
    there, and the connection stays open), `"ignore range"`.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[str]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, data: bytes, checksum: str | None = None) -> None:
        name = path.rsplit("/", 1)[-1]
        self.files[path] = data
        stated = checksum or hashlib.sha256(data).hexdigest()
        self.files[f"{path}.CHECKSUM"] = f"{stated}  {name}\n".encode()

    def fault(self, path: str, *faults: str) -> None:
        self.faults.setdefault(path, deque()).extend(faults)

    def asked(self, ending: str) -> int:
        return Counter(path.endswith(ending) for _, path, _ in self.requests)[True]

    @contextmanager
    def running(self) -> Iterator[ArchiveServer]:
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                asked = self.headers.get("Range")
                archive.requests.append((self.command, self.path, asked))
                queue = archive.faults.get(self.path)
                fault = queue.popleft() if queue else ""
                data = archive.files.get(self.path)
                if fault[:3].isdigit() or data is None:
                    self.send_response(int(fault[:3]) if fault else 404)
                    if " after " in fault:
                        self.send_header("Retry-After", fault.split(" after ")[1])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fault != "ignore range" else 0
                if start >= len(data) > 0:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Last-Modified", formatdate(usegmt=True))
                self.end_headers()
                if not body:
                    return
                how, _, length = fault.partition(" ")
                if how in ("cut", "stall"):
                    self.wfile.write(data[start : start + int(length)])
                    self.wfile.flush()
                    if how == "stall":
                        archive.released.wait(30)
                    self.close_connection = True
                    return
                self.wfile.write(data[start:])

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            thread.join()
            server.server_close()
