"""FRED over a real socket: all vintages however they are asked for, and one clear error where they cannot be had."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import SecretStr

from mdplatform.errors import InvalidSetting, PlatformError, SourceUnavailable, UnknownFormat
from mdplatform.market.macro import MACRO
from mdplatform.settings import Settings
from mdplatform.sources.fred import Fred
from mdplatform.sources.fred_connection import Pace
from mdplatform.sources.release_clock import published_at
from mdplatform.sources.table_registry import remote
from mdplatform.sources.vintages import days, observed_values, rows_of_intervals

from .fred_server import KEY, OPEN, FredServer, Interval

INTERVALS: list[Interval] = [
    ("2024-01-01", "2024-02-13", "2024-03-11", "100.0"),
    ("2024-01-01", "2024-03-12", "2024-07-10", "100.5"),
    ("2024-01-01", "2024-07-11", OPEN, "101.0"),
    ("2024-02-01", "2024-03-12", OPEN, "102.0"),
    ("2024-03-01", "2024-04-10", OPEN, "."),
    ("2024-04-01", "2024-05-15", "2024-06-11", "103.0"),  # withdrawn
    ("2024-05-01", "2024-06-12", "2024-07-10", "104.0"),
    ("2024-05-01", "2024-07-11", OPEN, "104.25"),
]


class Clock:
    """A clock that goes on when somebody sleeps, and remembers for how long."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def now(self) -> float:
        return self.at


@pytest.fixture(scope="module")
def running() -> Iterator[FredServer]:
    with FredServer().running() as server:
        yield server


@pytest.fixture
def server(running: FredServer) -> FredServer:
    running.series = {"CPIAUCSL": INTERVALS}
    running.requests.clear()
    running.faults.clear()
    running.most_vintages = 2000
    return running


def client(server: FredServer, clock: Clock | None = None, key: str | None = KEY, **given: float) -> Fred:
    time = clock or Clock()
    secret = None if key is None else SecretStr(key)
    return Fred(server.url, secret, requests_per_minute=10**9, sleep=time.sleep, now=time.now, **given)  # type: ignore[arg-type]


def told(rows: pl.DataFrame) -> list[tuple[str, str, float | None]]:
    """Give period, day of publication and value of each row, in that order."""
    named = rows.select(
        pl.col("ref_period").dt.strftime("%Y-%m-%d"), pl.col("vintage").dt.strftime("%Y-%m-%d"), "value"
    )
    return sorted(named.rows(), key=lambda row: row[:2])


def truth(intervals: list[Interval]) -> list[tuple[str, str, float | None]]:
    """Give what was published on which day, worked out from the intervals in plain steps."""
    published = []
    for day in {row[0] for row in intervals}:
        stood = sorted(row[1:] for row in intervals if row[0] == day)
        before: tuple[str, str] | None = None
        for start, end, value in stood:
            if before is not None and next_day(before[0]) < start:
                if before[1] != ".":
                    published.append((day, next_day(before[0]), None))
                before = None
            if before is None or before[1] != value:
                published.append((day, start, None if value == "." else float(value)))
            before = (end, value)
        if before is not None and before[0] != OPEN and before[1] != ".":
            published.append((day, next_day(before[0]), None))
    return sorted(published, key=lambda row: row[:2])


def next_day(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def test_every_vintage_comes_with_its_day_and_clock_time(server: FredServer) -> None:
    rows = client(server).rows("CPIAUCSL")
    assert rows.schema == MACRO.delivered
    assert told(rows) == truth(INTERVALS)
    first = rows.filter(pl.col("ref_period") == datetime(2024, 1, 1, tzinfo=UTC)).sort("vintage")
    assert first["available_at"].to_list() == [
        datetime(2024, 2, 13, 13, 30, tzinfo=UTC),
        datetime(2024, 3, 12, 12, 30, tzinfo=UTC),
        datetime(2024, 7, 11, 12, 30, tzinfo=UTC),
    ]
    assert rows["published_at"].equals(rows["available_at"].alias("published_at"))


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 100])
def test_the_edge_of_a_question_never_becomes_a_day_of_publication(server: FredServer, most: int) -> None:
    server.most_vintages = most
    assert told(client(server, most_vintages=most).rows("CPIAUCSL")) == truth(INTERVALS)
    asked = [each for each in server.requests if each["path"].endswith("observations")]
    released = server.vintage_days("CPIAUCSL")
    assert len(asked) == -(-len(released) // most)
    published = {(row[0], row[1]) for row in truth(INTERVALS)}
    cut = [
        row
        for each in asked[1:]
        for row in server.answer("/fred/series/observations", each)["observations"]  # type: ignore[attr-defined]
        if row["realtime_start"] == each["realtime_start"] and (row["date"], row["realtime_start"]) not in published
    ]
    assert bool(cut) == (len(asked) > 1), "the server cuts nothing off, so that this test shows nothing"


histories = st.lists(
    st.tuples(st.integers(0, 4), st.lists(st.sampled_from([None, "1", "2", "."]), min_size=1, max_size=9)),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row[0],
)


@budget(max_examples=15, deadline=None)
@given(history=histories, most=st.integers(1, 5), page=st.integers(1, 4))
def test_whatever_the_history_and_the_size_of_questions_and_pages(
    running: FredServer, history: list[tuple[int, list[str | None]]], most: int, page: int
) -> None:
    intervals: list[Interval] = []
    for period, values in history:  # None: it does not stand in that vintage
        for number, value in enumerate(values):
            start = date(2024, 1, 10) + timedelta(days=7 * number)
            end = OPEN if number == len(values) - 1 else (start + timedelta(days=6)).isoformat()
            if value is not None:
                intervals.append((f"2023-0{period + 1}-01", start.isoformat(), end, value))
    joined = merged(intervals)
    if not joined:
        return
    running.series, running.most_vintages = {"X": joined}, most
    running.faults.clear()
    rows = client(running, most_vintages=most, page_days=page, page_rows=page).rows("X")
    assert told(rows) == truth(joined)


def merged(intervals: list[Interval]) -> list[Interval]:
    """Join intervals that go on with the same value, as FRED keeps them."""
    made: list[Interval] = []
    for day, start, end, value in sorted(intervals):
        if made and made[-1][0] == day and made[-1][3] == value and next_day(made[-1][2]) == start:
            made[-1] = (day, made[-1][1], end, value)
        else:
            made.append((day, start, end, value))
    return made


def test_more_vintages_than_fred_gives_at_once_are_asked_for_in_parts(server: FredServer) -> None:
    days_ = [(date(2010, 1, 1) + timedelta(days=each)).isoformat() for each in range(4100)]
    server.series["DGS10"] = [(day, day, OPEN, "4.5") for day in days_]
    rows = client(server).rows("DGS10")
    assert told(rows) == [(day, day, 4.5) for day in days_]
    assert [each["path"].rsplit("/", 1)[-1] for each in server.requests] == ["vintagedates"] + ["observations"] * 3


def test_nothing_that_hides_vintages_is_sent(server: FredServer) -> None:
    client(server).rows("CPIAUCSL")
    for each in server.requests:
        assert not {"units", "frequency", "aggregation_method"} & set(each)
        assert each["file_type"] == "json"


def test_real_vintages_come_back_as_they_are_whatever_the_parts(server: FredServer, shared_data: Path) -> None:
    raw = pl.read_csv(shared_data / "ready" / "macro" / "vintages_yuenan142.csv.gz", infer_schema=False)
    raw = raw.filter(pl.col("series_id") == "M2SL").with_columns(pl.col("value").fill_null("."))
    names = ["date", "realtime_start", "realtime_end", "value"]
    server.series["M2SL"] = raw.select(names).rows()
    read = (days(raw[name], "x") if name != "value" else observed_values(raw[name], "x") for name in names)
    wanted = rows_of_intervals("M2SL", pl.DataFrame(list(read)))
    assert client(server, most_vintages=4, page_rows=500).rows("M2SL").equals(wanted)
    assert wanted.height == raw.height


@pytest.mark.parametrize(("key", "said"), [(None, "is not set"), ("", "is not set"), ("ABC", "is no key of FRED's")])
def test_a_missing_or_malformed_key_is_told_before_anything_is_asked(
    server: FredServer, key: str | None, said: str
) -> None:
    with pytest.raises(InvalidSetting, match=said):
        client(server, key=key).rows("CPIAUCSL")
    assert server.requests == []


def test_a_key_that_fred_refuses_is_told_with_what_fred_says_and_without_the_key(server: FredServer) -> None:
    other = "z" * 32
    with pytest.raises(InvalidSetting, match="is not registered") as refused:
        client(server, key=other).rows("CPIAUCSL")
    assert other not in str(refused.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("series", "said"),
    [("CPIAUCSLL", "FRED has no series CPIAUCSLL"), ("UNARCHIVED", "keeps no vintages"), ("../x y", "No name of")],
)
def test_an_unknown_series_is_told_once_with_what_fred_says(server: FredServer, series: str, said: str) -> None:
    with pytest.raises(SourceUnavailable, match=said):
        client(server).rows(series)
    assert len(server.requests) <= 1


def test_too_many_requests_waits_as_long_as_fred_says(server: FredServer) -> None:
    server.faults.extend(["429 after 7", "", "429 after 3"])
    clock = Clock()
    assert told(client(server, clock).rows("CPIAUCSL")) == truth(INTERVALS)
    assert clock.slept == [7.0, 3.0]


def test_faults_that_may_pass_are_tried_again_later_and_later(server: FredServer) -> None:
    server.faults.extend(["503", "500", "cut", "502"])
    clock = Clock()
    assert told(client(server, clock).rows("CPIAUCSL")) == truth(INTERVALS)
    assert len(clock.slept) == 4
    for attempt, slept in enumerate(clock.slept):
        assert 0.25 * 2**attempt <= slept <= 0.5 * 2**attempt


def test_an_answer_that_stalls_is_given_up_and_asked_for_again(server: FredServer) -> None:
    server.faults.append("stall")
    clock = Clock()
    assert told(client(server, clock, timeout_seconds=0.2).rows("CPIAUCSL")) == truth(INTERVALS)
    assert len(clock.slept) == 1


def test_after_the_last_attempt_the_error_says_what_happened(server: FredServer) -> None:
    server.faults.extend(["503"] * 4)
    with pytest.raises(SourceUnavailable, match=r"after 4 attempts.*HTTP 503"):
        client(server, retries=3).rows("CPIAUCSL")
    assert len(server.requests) == 4


def test_the_deadline_ends_it_however_many_attempts_are_left(server: FredServer) -> None:
    server.faults.extend(["429 after 40"] * 9)
    clock = Clock()
    with pytest.raises(SourceUnavailable, match="within the deadline"):
        client(server, clock, retries=50, deadline_seconds=100).rows("CPIAUCSL")
    assert clock.at <= 100


@pytest.mark.parametrize(("fault", "said"), [("html", "no JSON object"), ("other json", "lacks vintage_dates")])
def test_an_answer_of_another_shape_is_refused(server: FredServer, fault: str, said: str) -> None:
    server.faults.append(fault)
    with pytest.raises(UnknownFormat, match=said):
        client(server).rows("CPIAUCSL")


def test_values_that_are_no_numbers_are_refused_with_their_text(server: FredServer) -> None:
    server.series["X"] = [("2024-01-01", "2024-02-13", OPEN, "12,5")]
    with pytest.raises(UnknownFormat, match="12,5"):
        client(server).rows("X")


def test_no_log_and_no_error_shows_the_key(server: FredServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = client(server)
    asked.rows("CPIAUCSL")
    server.faults.extend(["503"] * 9)
    nowhere = Fred("http://127.0.0.1:9/fred", SecretStr(KEY), retries=0, requests_per_minute=10**9)
    told_ = [repr(asked), str(vars(asked))]
    for each in (asked, nowhere):
        with pytest.raises(SourceUnavailable) as failed:
            each.rows("CPIAUCSL")
        told_ += [str(failed.value), repr(failed.value), str(failed.value.__cause__), str(failed.value.__context__)]
    assert all(each["api_key"] == KEY for each in server.requests)
    assert "series/vintagedates" in caplog.text, "httpx no longer logs what it asks for: look where else it may tell"
    assert KEY not in caplog.text
    assert KEY not in "".join(told_)


def test_settings_keep_the_key_to_themselves_and_hand_it_on(
    settings: Settings, server: FredServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_FRED_API_KEY", KEY)
    monkeypatch.setenv("MDPLATFORM_FRED_URL", server.url)
    loaded = Settings.load()
    assert KEY not in repr(loaded)
    assert KEY not in str(dict(loaded))
    loaded.export()
    assert os.environ["MDPLATFORM_FRED_API_KEY"] == KEY
    delivery = next(iter(remote("macro", "fred", Settings.load()).deliveries("CPIAUCSL", None, None)))
    assert (delivery.source, delivery.rows.height) == ("fred:CPIAUCSL", len(truth(INTERVALS)))


@pytest.mark.parametrize("url", ["http://[", "nowhere", "ftp://127.0.0.1/fred"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(PlatformError, match="MDPLATFORM_FRED_URL") as told_:
        Fred(url, SecretStr(KEY), retries=0).rows("CPIAUCSL")
    assert KEY not in str(told_.value)


def test_a_refused_key_is_not_shown() -> None:
    with pytest.raises(PlatformError) as refused:
        Settings.load(fred_api_key=[KEY])
    assert KEY not in str(refused.value)


def test_deliveries_hold_what_became_available_in_the_time_asked_for(server: FredServer) -> None:
    start, end = (int(datetime(2024, month, 1, tzinfo=UTC).timestamp() * 1e6) for month in (3, 6))
    delivery = next(iter(client(server).deliveries("CPIAUCSL", start, end)))
    assert {row[1] for row in told(delivery.rows)} == {"2024-03-12", "2024-04-10", "2024-05-15"}


def test_questions_keep_to_so_many_a_minute() -> None:
    clock, pace = Clock(), Pace(3)
    turns = []
    for _ in range(8):
        pace.wait(clock.now, clock.sleep, 1e9)
        turns.append(clock.at)
        clock.at += 1.0
    for first, fourth in zip(turns, turns[3:], strict=False):
        assert fourth - first >= 60.0
    assert clock.at < 180.0
    for _ in range(3):
        pace.wait(clock.now, clock.sleep, 1e9)
    with pytest.raises(SourceUnavailable, match="no turn before the deadline"):
        pace.wait(clock.now, clock.sleep, clock.at + 0.5)


def test_clients_of_one_process_share_the_limit(server: FredServer) -> None:
    clock = Clock()
    for _ in range(3):
        time = {"sleep": clock.sleep, "now": clock.now}
        Fred(server.url, SecretStr(KEY), requests_per_minute=4, **time).rows("CPIAUCSL")  # type: ignore[arg-type]
    assert sum(clock.slept) == pytest.approx(60.0)


def test_a_series_whose_hour_is_not_known_is_available_when_its_day_is_over(server: FredServer) -> None:
    server.series["SP500"] = [("2024-03-08", "2024-03-08", OPEN, "5123.69")]
    rows = client(server).rows("SP500")
    assert rows["available_at"].to_list() == [datetime(2024, 3, 9, 6, tzinfo=UTC)]
    assert published_at("SP500", date(2024, 3, 8)) == datetime(2024, 3, 9, 6, tzinfo=UTC)
