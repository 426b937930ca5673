"""FRED and ALFRED: every vintage of a series, over the API of the Federal Reserve Bank of St. Louis.

1. `series/vintagedates` gives the days on which the series was released or revised, page by page.
2. `series/observations` is asked for all observations between two release days, at most `most_vintages` in one
   question, page by page. No units and no frequency are sent: with these FRED hides vintages.
3. Each question begins on a release day and ends on the day before the next one does, so that nothing falls between. An
   observation that stood at an edge comes with its interval cut off there; `vintages` joins the parts again.

Questions keep under FRED's limit (`fred_connection`), and are asked again, later and later, until the series' deadline.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count

import httpx
import msgspec
import polars as pl
from pydantic import SecretStr

from mdplatform.errors import InvalidSetting, OversizedFile, SourceUnavailable, UnknownFormat
from mdplatform.features.data import within
from mdplatform.market.macro import MACRO, VINTAGES
from mdplatform.settings import Settings
from mdplatform.sources.download import retry_after, why
from mdplatform.sources.files import DEFAULT_MAX_BYTES
from mdplatform.sources.fred_connection import Signing, pace_of
from mdplatform.sources.table_delivery import TableDelivery
from mdplatform.sources.vintages import INTERVALS, OPEN_END, days, observed_values, rows_of_intervals

MOST_VINTAGES = 1_990
"""FRED answers for at most 2,000 at once; the rest is for releases that come while it is asked."""

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_KEY = re.compile(r"[0-9a-z]{32}")
_SERIES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LOOK_UP = "Look its name up at https://fred.stlouisfed.org; it is written in capitals"


class _TryAgain(Exception):
    """A question that failed in a way that may pass; `delay` seconds where the server says so."""

    def __init__(self, said: str, delay: float | None = None) -> None:
        super().__init__(said)
        self.delay = delay


class Fred:
    """The API under `base_url`; `retries` and `timeout_seconds` are for one question, the deadline for one series.

    `most_vintages`, `page_days` and `page_rows` bound one answer; `sleep` and `now` (seconds) are the process's own.
    """

    name = "fred"

    def __init__(
        self,
        base_url: str,
        api_key: SecretStr | None,
        *,
        retries: int = 5,
        timeout_seconds: float = 30.0,
        deadline_seconds: float = 300.0,
        requests_per_minute: int = 100,
        max_bytes: int = DEFAULT_MAX_BYTES,
        most_vintages: int = MOST_VINTAGES,
        page_days: int = 10_000,
        page_rows: int = 100_000,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self.timeout_seconds = timeout_seconds
        self.deadline_seconds = deadline_seconds
        self.max_bytes = max_bytes
        self.most_vintages = most_vintages
        self.page_days = page_days
        self.page_rows = page_rows
        self._api_key = api_key
        self._pace = pace_of(self.base_url, requests_per_minute)
        self._sleep = sleep
        self._now = now

    @classmethod
    def from_settings(cls, settings: Settings) -> Fred:
        """Make the client that the settings describe."""
        return cls(
            settings.fred_url,
            settings.fred_api_key,
            retries=settings.fred_retries,
            timeout_seconds=settings.fred_timeout_seconds,
            deadline_seconds=settings.fred_deadline_seconds,
            requests_per_minute=settings.fred_requests_per_minute,
            max_bytes=settings.max_file_bytes,
        )

    def deliveries(self, name: str, start: int | None, end: int | None) -> Iterator[TableDelivery]:
        """Give the vintages of the series `name` that became available in `[start, end)` (µs), in one delivery.

        Raises `InvalidSetting` for a key that is missing or refused, and `SourceUnavailable` where FRED has no such
        series, or did not answer in time.
        """
        rows = within(self.rows(name), "available_at", start, end)
        yield TableDelivery.of(MACRO, f"{self.name}:{name}", rows, form=VINTAGES)

    def rows(self, series: str) -> pl.DataFrame:
        """Give every vintage of a series (`MACRO.delivered`). Raises as `deliveries` does."""
        if not _SERIES.fullmatch(series):
            raise SourceUnavailable("No name of a FRED series", value=series[:80], remedy=_LOOK_UP)
        key = self._key()
        try:
            questions = _Questions(self, series, key)
        except (httpx.InvalidURL, ValueError) as unusable:
            raise InvalidSetting(
                "MDPLATFORM_FRED_URL, or the proxy of the environment, is no URL", value=why(unusable)
            ) from None
        try:
            return rows_of_intervals(series, self._intervals(questions, series), OPEN_END)
        finally:
            questions.close()

    def _key(self) -> str:
        key = self._api_key.get_secret_value().strip() if self._api_key is not None else ""
        remedy = "A key is free: https://fred.stlouisfed.org/docs/api/api_key.html"
        if not key:
            raise InvalidSetting("MDPLATFORM_FRED_API_KEY is not set", remedy=remedy)
        if not _KEY.fullmatch(key):
            raise InvalidSetting(
                "MDPLATFORM_FRED_API_KEY is no key of FRED's",
                value=f"{len(key)} characters",
                remedy=f"It has 32 small letters and digits. {remedy}",
            )
        return key

    def _intervals(self, questions: _Questions, series: str) -> pl.DataFrame:
        pages = questions.pages("series/vintagedates", {"sort_order": "asc"}, "vintage_dates", self.page_days)
        told = [day for page in pages for day in page]
        released = days(pl.Series("vintage_dates", told, dtype=pl.String), f"FRED's answer about {series}").to_list()
        if not released:
            raise SourceUnavailable(f"FRED has no vintages of {series}", remedy=_LOOK_UP)
        parts = [pl.DataFrame(schema=INTERVALS)]
        for first in range(0, len(released), self.most_vintages):
            after = first + self.most_vintages
            last = released[after] - timedelta(days=1) if after < len(released) else OPEN_END
            asked = {
                "realtime_start": released[first].isoformat(),
                "realtime_end": last.isoformat(),
                "output_type": "1",
                "sort_order": "asc",
            }
            for page in questions.pages("series/observations", asked, "observations", self.page_rows):
                parts.append(_as_intervals(page, series))
        return pl.concat(parts)


class _Questions:
    """What one series takes: a connection, a deadline, and how often to ask again."""

    def __init__(self, fred: Fred, series: str, key: str) -> None:
        self._fred = fred
        self._series = series
        self._key = key
        self._ends = fred._now() + fred.deadline_seconds
        self._client = httpx.Client(
            transport=Signing(key, fred.base_url), timeout=fred.timeout_seconds, follow_redirects=False
        )

    def close(self) -> None:
        self._client.close()

    def pages(self, path: str, asked: dict[str, str], field: str, size: int) -> Iterator[list[object]]:
        """Give `field` of each page of an answer."""
        offset = 0
        while True:
            answer = self._answer(path, {**asked, "limit": str(size), "offset": str(offset)})
            page, total = answer.get(field), answer.get("count")
            if not isinstance(page, list) or not isinstance(total, int):
                raise UnknownFormat(f"FRED's answer about {self._series} lacks {field}", value=sorted(answer)[:10])
            yield page
            offset += len(page)
            if offset >= total:
                return
            if not page:
                raise SourceUnavailable(
                    f"FRED's answer about {self._series} ends early", value=f"{offset} of {total}", remedy="Try again"
                )

    def _answer(self, path: str, asked: dict[str, str]) -> dict[str, object]:
        params = {"series_id": self._series, "file_type": "json", **asked}
        for attempt in count():
            try:
                return self._ask(f"{self._fred.base_url}/{path}", params)
            except _TryAgain as failed:
                delay = failed.delay
                if delay is None:
                    delay = min(_FIRST_DELAY * 2.0**attempt, _LONGEST_DELAY) * random.uniform(0.5, 1.0)
                too_late = self._fred._now() + delay > self._ends
                if attempt >= self._fred.retries or too_late:
                    raise SourceUnavailable(
                        f"FRED does not answer about {self._series}"
                        + (" within the deadline" if too_late else f" after {attempt + 1} attempts"),
                        value=self._without_key(str(failed)),
                        remedy="Try again later, or see MDPLATFORM_FRED_URL, _RETRIES and _DEADLINE_SECONDS",
                    ) from None
                self._fred._sleep(delay)
        raise AssertionError("counting has no end")

    def _ask(self, url: str, params: dict[str, str]) -> dict[str, object]:
        self._fred._pace.wait(self._fred._now, self._fred._sleep, self._ends)
        body = bytearray()
        left = self._ends - self._fred._now()
        try:
            with self._client.stream(
                "GET", url, params=params, timeout=min(self._fred.timeout_seconds, max(left, 0.01))
            ) as answer:
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > self._fred.max_bytes:
                        raise OversizedFile(f"FRED's answer about {self._series} is too large", value=len(body))
                    if self._fred._now() > self._ends:
                        raise _TryAgain(f"the answer was still coming after {len(body)} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as failed:
            raise _TryAgain(why(failed)) from None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _TryAgain(f"HTTP {answer.status_code}", retry_after(answer.headers.get("Retry-After")))
        if answer.status_code != 200:
            raise self._refusal(answer.status_code, bytes(body))
        try:
            return msgspec.json.decode(bytes(body), type=dict[str, object])
        except msgspec.DecodeError:
            shown = self._without_key(body[:80].decode(errors="replace"))
            raise UnknownFormat(f"FRED's answer about {self._series} is no JSON object", value=shown) from None

    def _refusal(self, status: int, body: bytes) -> InvalidSetting | SourceUnavailable:
        try:
            said = str(msgspec.json.decode(body, type=dict[str, object]).get("error_message", ""))
        except msgspec.DecodeError:
            said = ""
        said = self._without_key(" ".join(said.split())[:300])
        if "api_key" in said:
            return InvalidSetting(
                "FRED refuses MDPLATFORM_FRED_API_KEY", value=said, remedy="Copy it from your account at FRED"
            )
        if "not exist in ALFRED" in said:
            return SourceUnavailable(
                f"FRED keeps no vintages of {self._series}",
                value=said,
                remedy="Download its CSV, and take that in; nothing of it is then known of the past",
            )
        if "series does not exist" in said:
            return SourceUnavailable(f"FRED has no series {self._series}", value=said, remedy=_LOOK_UP)
        return SourceUnavailable(f"FRED refuses a question about {self._series}", value=f"HTTP {status} {said}".strip())

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***")


def _as_intervals(page: list[object], series: str) -> pl.DataFrame:
    where = f"FRED's answer about {series}"
    names = list(INTERVALS)
    try:
        told = msgspec.convert(page, type=list[dict[str, str]])
        cells = {name: pl.Series(name, [row[name] for row in told], dtype=pl.String) for name in names}
    except (msgspec.ValidationError, KeyError) as broken:
        raise UnknownFormat(f"{where} is not as its documents say", value=str(broken)[:120]) from None
    return pl.DataFrame(
        [*(days(cells[name], where) for name in names[:3]), observed_values(cells["value"], where)], schema=INTERVALS
    )
