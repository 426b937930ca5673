"""The public archive's dumps over a real socket: good ones, and each way in which fetching them goes wrong."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mdplatform.errors import (
    ChecksumMismatch,
    OversizedFile,
    ParameterOutOfRange,
    SourceUnavailable,
    UnknownSource,
)
from mdplatform.market.time import from_us, month_range, months_between
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.binance_archive import BinanceArchive
from mdplatform.sources.files import read_file
from mdplatform.sources.registry import source

from .archive_server import ArchiveServer
from .files_as_written import Bar, dump, zipped

JANUARY = month_range("2025-01")
NOW = month_range("2025-03")[0] + 3 * DAY_US + 5 * 3600 * 10**6  # the 4th of March, 05:00
MONTHLY = "/data/spot/monthly/klines/BTCUSDT/1h"
DAILY = "/data/spot/daily/klines/BTCUSDT/1h"


def hours(start: int, end: int, seed: int = 1) -> bytes:
    """A dump of hourly bars with volumes that no compression makes small."""
    draw = random.Random(seed)
    seconds = range(start // 10**6, end // 10**6, 3600)
    return dump(
        [Bar(at, at + 3600, volume=f"{draw.random():.8f}", quote_volume=f"{draw.random():.8f}") for at in seconds], "us"
    )


def month_zip(month: str, seed: int = 1) -> bytes:
    return zipped({f"BTCUSDT-1h-{month}.csv": hours(*month_range(month), seed)})


def day_zip(day: int) -> tuple[str, bytes]:
    label = f"{from_us(day):%Y-%m-%d}"
    return f"{DAILY}/BTCUSDT-1h-{label}.zip", zipped({f"BTCUSDT-1h-{label}.csv": hours(day, day + DAY_US)})


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer().running() as running:
        running.put(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip", month_zip("2025-01"))
        running.put(f"{MONTHLY}/BTCUSDT-1h-2025-02.zip", month_zip("2025-02"))
        for day in range(month_range("2025-03")[0], NOW - DAY_US, DAY_US):
            running.put(*day_zip(day))
        yield running


class Waits(list[float]):
    """What would have been slept, so that tests need not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def archive(server: ArchiveServer, folder: Path, **given: Any) -> BinanceArchive:
    given = {"timeout_seconds": 5.0, "now": lambda: NOW, "sleep": Waits(), **given}
    return BinanceArchive(server.url, folder, **given)


def counts(source: BinanceArchive, start: int = JANUARY[0], end: int = JANUARY[1]) -> list[int]:
    return [each.rows.height for each in source.bars("BTCUSDT", Timeframe.H1, start, end)]


def test_whole_months_come_monthly_and_the_running_one_daily(server: ArchiveServer, tmp_path: Path) -> None:
    absent: list[str] = []
    deliveries = list(
        archive(server, tmp_path, on_absent=absent.append).bars("btcusdt", Timeframe.H1, JANUARY[0], NOW + 99 * DAY_US)
    )
    assert [each.rows.height for each in deliveries] == [31 * 24, 28 * 24, 3 * 24]
    assert {(each.symbol, each.timeframe) for each in deliveries} == {("BTCUSDT", Timeframe.H1)}
    assert deliveries[0].source == "binance_archive:BTCUSDT-1h-2025-01.zip"
    assert deliveries[2].source == "binance_archive:BTCUSDT-1h-2025-03-01.zip BTCUSDT-1h-2025-03-03.zip"
    assert server.asked("-2025-03.zip") == 0
    assert server.asked("-2025-03-04.zip.CHECKSUM") == 0
    assert absent == []
    path = tmp_path / "as-a-file" / "BTCUSDT-1h-2025-01.zip"
    path.parent.mkdir()
    path.write_bytes(server.files[f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"])
    assert deliveries[0].content_hash == read_file(path)[0].content_hash


def test_only_bars_that_open_in_the_range_are_given(server: ArchiveServer, tmp_path: Path) -> None:
    start, end = JANUARY[1] - 5 * 3600 * 10**6, JANUARY[1] + 2 * 3600 * 10**6
    assert counts(archive(server, tmp_path), start, end) == [5, 2]


def test_a_verified_file_is_not_fetched_again(server: ArchiveServer, tmp_path: Path) -> None:
    assert counts(archive(server, tmp_path)) == counts(archive(server, tmp_path)) == [744]
    assert server.asked("2025-01.zip") == 1
    assert server.asked("2025-01.zip.CHECKSUM") == 2


def test_a_file_that_was_issued_again_is_fetched_again(server: ArchiveServer, tmp_path: Path) -> None:
    (before,) = archive(server, tmp_path).bars("BTCUSDT", Timeframe.H1, *JANUARY)
    server.put(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip", month_zip("2025-01", seed=2))
    (after,) = archive(server, tmp_path).bars("BTCUSDT", Timeframe.H1, *JANUARY)
    assert before.content_hash != after.content_hash
    assert server.asked("2025-01.zip") == 2


def test_a_damaged_copy_is_fetched_again(server: ArchiveServer, tmp_path: Path) -> None:
    counts(archive(server, tmp_path))
    (copy,) = tmp_path.rglob("*.zip")
    copy.write_bytes(copy.read_bytes()[:-5])
    assert counts(archive(server, tmp_path)) == [744]


def test_a_month_without_a_file_comes_day_by_day_and_its_absent_days_are_told(
    server: ArchiveServer, tmp_path: Path
) -> None:
    del server.files[f"{MONTHLY}/BTCUSDT-1h-2025-02.zip.CHECKSUM"], server.files[f"{MONTHLY}/BTCUSDT-1h-2025-02.zip"]
    february = month_range("2025-02")
    for day in range(february[0] + 10 * DAY_US, february[1], DAY_US):
        server.put(*day_zip(day))
    absent: list[str] = []
    assert counts(archive(server, tmp_path, on_absent=absent.append), *february) == [18 * 24]
    assert sorted(absent) == [f"BTCUSDT-1h-2025-02-{day:02}.zip" for day in range(1, 11)]


def test_a_month_that_is_absent_altogether_is_told_and_costs_few_requests(
    server: ArchiveServer, tmp_path: Path
) -> None:
    absent: list[str] = []
    assert counts(archive(server, tmp_path, on_absent=absent.append), month_range("2024-11")[0], JANUARY[1]) == [744]
    assert absent == ["BTCUSDT-1h-2024-11.zip", "BTCUSDT-1h-2024-12.zip"]
    assert len(server.requests) < 20


def test_nothing_at_all_is_an_error_that_says_what_was_asked(server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="NOPEUSDT 1h"):
        list(archive(server, tmp_path).bars("NOPEUSDT", Timeframe.H1, *JANUARY))
    with pytest.raises(SourceUnavailable):
        list(archive(server, tmp_path).bars("BTCUSDT", Timeframe.H1, NOW, NOW + DAY_US))


@pytest.mark.parametrize("faults", [["503"], ["500", "502", "504"], ["cut 0"], ["429"]])
@pytest.mark.parametrize("ending", ["", ".CHECKSUM"])
def test_what_may_pass_is_tried_again_with_growing_waits(
    server: ArchiveServer, tmp_path: Path, faults: list[str], ending: str
) -> None:
    server.fault(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip{ending}", *faults)
    waits = Waits()
    assert counts(archive(server, tmp_path, sleep=waits)) == [744]
    assert len(waits) == len(faults)
    assert all(0.25 * 2**at <= wait <= 0.5 * 2**at for at, wait in enumerate(waits))


def test_retry_after_is_honoured_in_seconds_and_as_a_date(server: ArchiveServer, tmp_path: Path) -> None:
    server.fault(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip", "429 after 7", "503 after Wed, 21 Oct 2015 07:28:00 GMT")
    waits = Waits()
    assert counts(archive(server, tmp_path, sleep=waits)) == [744]
    assert waits == [7.0, 0.0]


def test_a_body_that_is_cut_goes_on_where_it_stopped(server: ArchiveServer, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"
    server.fault(path, "cut 5000", "cut 3000")
    assert counts(archive(server, tmp_path)) == [744]
    assert [asked for method, where, asked in server.requests if where == path] == [None, "bytes=5000-", "bytes=8000-"]
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == ["BTCUSDT-1h-2025-01.zip"]


def test_another_run_goes_on_where_one_gave_up(server: ArchiveServer, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"
    server.fault(path, "cut 5000")
    with pytest.raises(SourceUnavailable, match="1 attempts"):
        counts(archive(server, tmp_path, retries=0))
    assert list(tmp_path.rglob("*.zip")) == []
    assert counts(archive(server, tmp_path)) == [744]
    assert server.requests[-1] == ("GET", path, "bytes=5000-")


def test_a_part_of_an_older_issue_is_not_gone_on_with(server: ArchiveServer, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"
    server.fault(path, "cut 5000")
    with pytest.raises(SourceUnavailable):
        counts(archive(server, tmp_path, retries=0))
    server.put(path, month_zip("2025-01", seed=2))
    assert counts(archive(server, tmp_path)) == [744]
    assert server.requests[-1] == ("GET", path, None)
    assert len([each for each in tmp_path.rglob("*") if each.is_file()]) == 1


def test_a_server_without_ranges_sends_all_again(server: ArchiveServer, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"
    server.fault(path, "cut 5000", "ignore range")
    told: list[tuple[int, int | None, str]] = []
    assert counts(archive(server, tmp_path, progress=lambda *step: told.append(step))) == [744]
    size = len(server.files[path])
    assert told[-1][:2] == (size, size)


def test_a_part_that_is_already_whole_or_too_long_does_no_harm(server: ArchiveServer, tmp_path: Path) -> None:
    data = server.files[f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"]
    for leftover in (data, data + b"more"):
        folder = tmp_path / str(len(leftover)) / "spot" / "BTCUSDT" / "1h"
        folder.mkdir(parents=True)
        part = folder / f"BTCUSDT-1h-2025-01.zip.{hashlib.sha256(data).hexdigest()[:16]}.part"
        part.write_bytes(leftover)
        assert counts(archive(server, tmp_path / str(len(leftover)))) == [744]


def test_a_stalled_answer_is_left_after_the_timeout_and_gone_on_with(server: ArchiveServer, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"
    server.fault(path, "stall 4000")
    assert counts(archive(server, tmp_path, timeout_seconds=0.3)) == [744]
    assert server.requests[-1] == ("GET", path, "bytes=4000-")


def test_a_body_that_never_has_its_checksum_is_refused_and_nothing_is_kept(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.put(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip", month_zip("2025-01"), checksum="0" * 64)
    with pytest.raises(ChecksumMismatch, match=r"2025-01\.zip"):
        counts(archive(server, tmp_path, retries=2))
    assert server.asked("2025-01.zip") == 3
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_a_file_without_a_checksum_is_refused(server: ArchiveServer, tmp_path: Path) -> None:
    del server.files[f"{MONTHLY}/BTCUSDT-1h-2025-01.zip.CHECKSUM"]
    with pytest.raises(SourceUnavailable, match="no checksum"):
        counts(archive(server, tmp_path))


def test_a_server_that_stays_down_and_one_that_is_not_there_are_unavailable(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.fault(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip.CHECKSUM", *["503"] * 9)
    with pytest.raises(SourceUnavailable, match="HTTP 503"):
        counts(archive(server, tmp_path, retries=3))
    nobody = BinanceArchive("http://127.0.0.1:9", tmp_path, retries=1, now=lambda: NOW, sleep=Waits())
    with pytest.raises(SourceUnavailable, match="2 attempts"):
        counts(nobody)


def test_a_refusal_is_not_tried_again(server: ArchiveServer, tmp_path: Path) -> None:
    server.fault(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip.CHECKSUM", "403")
    with pytest.raises(SourceUnavailable, match="HTTP 403"):
        counts(archive(server, tmp_path))
    assert len(server.requests) == 1


def test_a_body_larger_than_allowed_is_not_fetched(server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(OversizedFile):
        counts(archive(server, tmp_path, max_bytes=5000))


def test_progress_goes_from_nothing_to_all_of_each_file(server: ArchiveServer, tmp_path: Path) -> None:
    told: list[tuple[int, int | None, str]] = []
    server.fault(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip", "cut 5000")
    counts(archive(server, tmp_path, progress=lambda *step: told.append(step)), JANUARY[0], month_range("2025-02")[1])
    for month in months_between(JANUARY[0], month_range("2025-02")[1]):
        name = f"BTCUSDT-1h-{month}.zip"
        size = len(server.files[f"{MONTHLY}/{name}"])
        steps = [(done, total) for done, total, told_name in told if told_name == name]
        assert steps[0] == (0, size)
        assert steps[-1] == (size, size)
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_two_that_want_the_same_file_at_once_fetch_it_once(server: ArchiveServer, tmp_path: Path) -> None:
    server.fault(f"{MONTHLY}/BTCUSDT-1h-2025-01.zip", "cut 5000")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: counts(archive(server, tmp_path)), range(4)))
    assert found == [[744]] * 4
    path = f"{MONTHLY}/BTCUSDT-1h-2025-01.zip"
    assert [asked for _, where, asked in server.requests if where == path] == [None, "bytes=5000-"]


def test_futures_lie_in_their_own_folders(server: ArchiveServer, tmp_path: Path) -> None:
    server.put("/data/futures/um/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2025-01.zip", month_zip("2025-01", seed=3))
    (spot,) = archive(server, tmp_path).bars("BTCUSDT", Timeframe.H1, *JANUARY)
    (futures,) = archive(server, tmp_path, market="futures/um").bars("BTCUSDT", Timeframe.H1, *JANUARY)
    assert spot.content_hash != futures.content_hash
    with pytest.raises(ParameterOutOfRange, match="futures/um"):
        archive(server, tmp_path, market="options")


def test_the_registry_sets_up_each_source_from_the_settings(settings: Settings, server: ArchiveServer) -> None:
    given = settings.model_copy(update={"archive_url": server.url, "archive_retries": 2})
    found = source("binance", given)
    assert isinstance(found, BinanceArchive)
    assert [each.rows.height for each in found.bars("BTCUSDT", Timeframe.H1, *JANUARY)] == [744]
    assert (settings.home / "downloads" / "binance" / "spot" / "BTCUSDT" / "1h" / "BTCUSDT-1h-2025-01.zip").is_file()
    assert source("simulated", settings).name == "simulated"
    with pytest.raises(UnknownSource, match="simulated"):
        source("bloomberg", settings)
