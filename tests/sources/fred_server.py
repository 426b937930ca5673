"""A server on a real socket that speaks FRED's protocol: its bodies, limits and errors, and how it cuts at edges."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "abcdefghijklmnopqrstuvwxyz012345"
OPEN = "9999-12-31"
Interval = tuple[str, str, str, str]
"""An observation's date, the first and the last day on which it stood, and its value."""


class Refused(Exception):
    """An answer with an error, as FRED words it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(repr=False)
class FredServer:
    """Series by name, and a queue of faults, each of which spoils one answer.

    Faults: an HTTP status such as `503`, `"429 after 7"`, `"stall"` (half a body, and then nothing), `"cut"` (half a
    body, and the connection is closed), `"html"`, `"other json"`.
    """

    series: dict[str, Sequence[Interval]] = field(default_factory=dict)
    faults: deque[str] = field(default_factory=deque)
    requests: list[dict[str, str]] = field(default_factory=list)
    most_vintages: int = 2000
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def vintage_days(self, name: str) -> list[str]:
        """Give the days on which anything of a series was released, revised or withdrawn."""
        ends = {
            (date.fromisoformat(end) + timedelta(days=1)).isoformat()
            for _, _, end, _ in self.series[name]
            if end != OPEN
        }
        return sorted({start for _, start, _, _ in self.series[name]} | ends)

    def answer(self, path: str, asked: dict[str, str]) -> dict[str, object]:
        if asked.get("api_key", "") == "":
            raise Refused(
                "Bad Request.  Variable api_key is not set.  "
                "Read https://fred.stlouisfed.org/docs/api/api_key.html for more information."
            )
        if asked["api_key"] != KEY:
            raise Refused(
                "Bad Request.  The value for variable api_key is not registered.  "
                f"Read https://fred.stlouisfed.org/docs/api/api_key.html for more information. ({asked['api_key']})"
            )
        if asked["series_id"] == "UNARCHIVED":
            raise Refused("Bad Request.  The series does not exist in ALFRED but may exist in FRED.")
        if asked["series_id"] not in self.series:
            raise Refused("Bad Request.  The series does not exist.")
        rows, limit = self.series[asked["series_id"]], int(asked.get("limit", "100000"))
        offset = int(asked.get("offset", "0"))
        if path.endswith("/series/vintagedates"):
            days = self.vintage_days(asked["series_id"])
            if limit > 10_000:
                raise Refused("Bad Request.  Variable limit is not between 1 and 10000.")
            return {
                "realtime_start": "1776-07-04",
                "realtime_end": OPEN,
                "order_by": "vintage_date",
                "sort_order": "asc",
                "count": len(days),
                "offset": offset,
                "limit": limit,
                "vintage_dates": days[offset : offset + limit],
            }
        if limit > 100_000:
            raise Refused("Bad Request.  Variable limit is not between 1 and 100000.")
        first, last = asked["realtime_start"], asked["realtime_end"]
        inside = [day for day in self.vintage_days(asked["series_id"]) if first <= day <= last]
        if len(inside) > self.most_vintages:
            raise Refused(
                f"Bad Request.  There are {len(inside)} vintage dates in the specified real-time period: {first} to "
                f"{last}.  This exceeds the maximum number of vintage dates allowed for this file type "
                f"({self.most_vintages})."
            )
        stood = [
            {"realtime_start": max(start, first), "realtime_end": min(end, last), "date": day, "value": value}
            for day, start, end, value in sorted(rows)
            if start <= last and end >= first
        ]
        return {
            "realtime_start": first,
            "realtime_end": last,
            "observation_start": "1600-01-01",
            "observation_end": OPEN,
            "units": "lin",
            "output_type": 1,
            "file_type": "json",
            "order_by": "observation_date",
            "sort_order": "asc",
            "count": len(stood),
            "offset": offset,
            "limit": limit,
            "observations": stood[offset : offset + limit],
        }

    @contextmanager
    def running(self) -> Iterator[FredServer]:
        fred = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one piece: two would wait for one another

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
                fred.requests.append({"path": parts.path, **asked})
                fault = fred.faults.popleft() if fred.faults else ""
                if fault[:3].isdigit():
                    message = {"error_code": int(fault[:3]), "error_message": "Too Many Requests.  Exceeded Rate Limit"}
                    after = fault.split(" after ")[1] if " after " in fault else None
                    self.send(int(fault[:3]), json.dumps(message).encode(), after)
                    return
                try:
                    status, body = 200, json.dumps(fred.answer(parts.path, asked)).encode()
                except Refused as refused:
                    told = {"error_code": refused.status, "error_message": str(refused)}
                    status, body = refused.status, json.dumps(told).encode()
                if fault == "html":
                    body = b"<html><body>The site is under maintenance</body></html>"
                if fault == "other json":
                    body = b'{"seriess": []}'
                self.send(status, body, None, fault)

            def send(self, status: int, body: bytes, after: str | None, fault: str = "") -> None:
                self.send_response(status)
                if after is not None:
                    self.send_header("Retry-After", after)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if fault in ("stall", "cut"):
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    if fault == "stall":
                        fred.released.wait(30)
                    self.close_connection = True
                    return
                self.wfile.write(body)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/fred"
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            thread.join()
            server.server_close()
