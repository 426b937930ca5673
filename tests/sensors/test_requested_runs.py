"""The runs that requests cause: they ask the right source, bring what is there, and say what is not."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import dagster as dg
import pytest

from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings
from tests.sensors.conftest import Strategies, Ticks

from ..sources.archive_server import ArchiveServer
from ..sources.fred_server import KEY, OPEN, FredServer

DAY = 1_738_281_600_000_000  # 2025-01-31


@pytest.fixture
def archive(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    """Binance's archive with one day of trades of one symbol."""
    rows = [f"{number},100.{number},2,{number},{number},{DAY + number},True,True" for number in range(5)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("BTCUSDT-aggTrades-2025-01-31.csv", "\n".join(rows) + "\n")
    with ArchiveServer().running() as server:
        path = "/data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2025-01-31.zip"
        server.put(path, packed.getvalue())
        monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", server.url)
        monkeypatch.setenv("MDPLATFORM_ARCHIVE_RETRIES", "0")
        monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "binance")
        yield server


def made(ticks: Ticks, asset: str) -> list[str]:
    records = ticks.instance.fetch_materializations(dg.AssetKey(asset), limit=50).records
    return sorted(str(each.partition_key) for each in records)


def test_days_of_trades_come_from_the_archive_and_a_day_that_it_lacks_is_named(
    strategies: Strategies, ticks: Ticks, lake: Lake, archive: ArchiveServer
) -> None:
    strategies.want({"trades": ["BTCUSDT/2025-01-31", "BTCUSDT/2025-02-01"]})
    (request,) = ticks.tick("data_requests").run_requests
    run = ticks.execute(request)
    assert run.is_success
    assert lake.table("trades").read(["BTCUSDT/2025-01-31"]).height == 5
    assert made(ticks, "trades") == ["2025-01-31|BTCUSDT", "2025-02-01|BTCUSDT"]
    assert "2025-01-31|BTCUSDT" in made(ticks, "volume_profile")
    records = ticks.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    checks = [each.event_log_entry.dagster_event.event_specific_data for each in records]  # type: ignore[union-attr]
    (source,) = [each for each in checks if each.check_name == "source"]  # type: ignore[union-attr]
    assert not source.passed  # type: ignore[union-attr]
    assert list(source.metadata["partitions_unanswered"].value) == ["BTCUSDT/2025-02-01"]  # type: ignore[union-attr]


def test_a_symbol_that_the_source_does_not_have_fails_the_run_and_is_not_kept(
    strategies: Strategies, ticks: Ticks, lake: Lake, archive: ArchiveServer
) -> None:
    strategies.want({"bars": ["NOSUCHCOIN/2025-01"]})
    run = ticks.execute(ticks.tick("data_requests").run_requests[0])
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert lake.universe.members() == {}
    ticks.sweep()
    (back,) = strategies.take()
    assert "NOSUCHCOIN" in back.note


def test_a_symbol_of_files_is_asked_of_the_source_in_its_own_timeframe(
    strategies: Strategies, ticks: Ticks, lake: Lake
) -> None:
    lake.universe.add("BTCUSDT", None, Timeframe.M15)
    strategies.want({"bars": ["BTCUSDT/2025-02"]})
    assert ticks.execute(ticks.tick("data_requests").run_requests[0]).is_success
    member = lake.universe.members()["BTCUSDT"]
    assert (member.source, member.timeframe) == ("simulated", Timeframe.M15)
    assert lake.bars.read("BTCUSDT", Timeframe.M15).height > 2_000


def test_a_series_that_nobody_took_in_comes_from_fred(
    strategies: Strategies, ticks: Ticks, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FredServer({"CPIAUCSL": [("2024-12-01", "2025-01-15", OPEN, "100.5")]}).running() as server:
        monkeypatch.setenv("MDPLATFORM_FRED_URL", server.url)
        monkeypatch.setenv("MDPLATFORM_FRED_API_KEY", KEY)
        monkeypatch.setenv("MDPLATFORM_FRED_RETRIES", "0")
        strategies.want({"macro_series": ["CPIAUCSL"]})
        assert ticks.execute(ticks.tick("data_requests").run_requests[0]).is_success
    assert lake.table("macro").read(["CPIAUCSL"])["value"].to_list() == [100.5]
    assert made(ticks, "macro_features") == ["CPIAUCSL"]


def test_a_symbol_that_is_registered_before_the_run_starts_is_not_asked_of_a_source_that_is_not_its_own(
    strategies: Strategies, ticks: Ticks, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "simulated")
    strategies.want({"bars": ["AAAUSDT/2025-01", "CCCUSDT/2025-01"]})
    (request,) = ticks.tick("data_requests").run_requests
    ticks.instance.add_dynamic_partitions("symbol", ["BBBUSDT"])
    lake.universe.add("BBBUSDT", None, Timeframe.M15)
    tags = {**request.tags, "dagster/asset_partition_range_start": "2025-01|AAAUSDT",
            "dagster/asset_partition_range_end": "2025-01|BBBUSDT"}  # fmt: skip
    assert ticks.execute(request._replace(tags=tags)).is_success
    members = lake.universe.members()
    assert (members["AAAUSDT"].source, members["BBBUSDT"].source) == ("simulated", None)
    assert lake.bars.months("BBBUSDT") == []
