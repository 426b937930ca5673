"""What workers cannot answer becomes runs: each partition once, a few runs a tick, and repeated ticks do no harm."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime

import dagster as dg
import pytest

from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.requests.answer import Progress
from mdplatform.requests.wanted import RunWanted
from mdplatform.sensors import data_requests as sensor
from mdplatform.sensors.request_runs import PARTITIONS_TAG, request_tag
from mdplatform.sensors.request_work import coalesce
from mdplatform.settings import Settings
from tests.conftest import Processes
from tests.sensors.conftest import Strategies, Ticks


def partitions(data: object) -> list[str]:
    return [request.tags[PARTITIONS_TAG] for request in data.run_requests]  # type: ignore[attr-defined]


def test_overlapping_ranges_cause_each_partition_once(strategies: Strategies, ticks: Ticks) -> None:
    first = strategies.want({"bars": ["BTCUSDT/2025-01", "BTCUSDT/2025-02"]}, strategy="momentum")
    second = strategies.want({"bars": ["BTCUSDT/2025-02", "BTCUSDT/2025-03"]}, strategy="mean reversion")
    data = ticks.tick("data_requests")
    assert partitions(data) == ["BTCUSDT/2025-01 BTCUSDT/2025-02 BTCUSDT/2025-03"]
    (request,) = data.run_requests
    assert request.job_name == "requested_bars"
    assert request.run_config["ops"]["bars"]["config"] == {
        "fetch": True, "source": "simulated", "source_for": ["BTCUSDT"],
    }  # fmt: skip
    assert request.tags["dagster/asset_partition_range_start"] == "2025-01|BTCUSDT"
    assert request.tags["dagster/asset_partition_range_end"] == "2025-03|BTCUSDT"
    assert request.tags[f"mdplatform.request/{first}"] == first
    assert request.tags[f"mdplatform.request/{second}"] == second
    assert request.tags["mdplatform.strategy/mean_reversion"] == "mean reversion"
    assert ticks.instance.get_dynamic_partitions("symbol") == ["BTCUSDT"]


def test_a_range_has_no_partition_that_nobody_wants(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01", "BTCUSDT/2025-03", "ETHUSDT/2025-03"]})
    assert sorted(partitions(ticks.tick("data_requests"))) == [
        "BTCUSDT/2025-01",
        "BTCUSDT/2025-03 ETHUSDT/2025-03",
    ]


def test_a_tick_that_was_not_stored_is_repeated_without_harm(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.want({"bars": ["BTCUSDT/2025-01"]})
    lost = ticks.evaluate("data_requests")  # the daemon dies before it stores this
    again = ticks.tick("data_requests")
    assert [each.run_key for each in again.run_requests] == [each.run_key for each in lost.run_requests]
    assert len(ticks.launch(again)) == 1
    repeated = ticks.evaluate("data_requests")  # as if the cursor had been reset
    assert repeated.run_requests == []
    assert f"mdplatform.request/{id}" in ticks.instance.get_runs()[0].tags


def test_nothing_is_dropped_from_the_stream_before_the_tick_is_stored(
    strategies: Strategies, ticks: Ticks, desk: RedisDesk
) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01"]})
    ticks.tick("data_requests")
    assert len(desk.wanted("0", 10)) == 1
    assert ticks.tick("data_requests").skip_message == "No request waits for a run."
    assert desk.wanted("0", 10) == []


def test_who_wants_what_was_asked_for_joins_that_run_and_hurries_it(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01", "BTCUSDT/2025-02"]}, priority=DataPriority.LOW)
    (run,) = ticks.launch(ticks.tick("data_requests"))
    assert run.tags["dagster/priority"] == "0"
    late = strategies.want(
        {"bars": ["BTCUSDT/2025-02", "BTCUSDT/2025-03"]}, priority=DataPriority.CRITICAL, strategy="scalper"
    )
    data = ticks.tick("data_requests")
    assert partitions(data) == ["BTCUSDT/2025-03"]
    joined = ticks.instance.get_run_by_id(run.run_id)
    assert joined is not None
    assert joined.tags[f"mdplatform.request/{late}"] == late
    assert joined.tags["mdplatform.strategy/scalper"] == "scalper"
    assert joined.tags["dagster/priority"] == "30"


def test_the_most_urgent_request_of_a_run_gives_its_priority(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01"]}, priority=DataPriority.LOW)
    strategies.want({"bars": ["BTCUSDT/2025-01"]}, priority=DataPriority.HIGH)
    strategies.want({"bars": ["ETHUSDT/2025-01"]}, priority=DataPriority.NORMAL)
    data = ticks.tick("data_requests")
    assert [(each.tags[PARTITIONS_TAG], each.tags["dagster/priority"]) for each in data.run_requests] == [
        ("BTCUSDT/2025-01", "20"),
        ("ETHUSDT/2025-01", "10"),
    ]


def test_many_new_symbols_share_a_run_in_the_order_of_their_registration(strategies: Strategies, ticks: Ticks) -> None:
    ticks.instance.add_dynamic_partitions("symbol", ["MMM"])
    for name in ("ZZZ", "MMM", "AAA"):
        strategies.want({"bars": [f"{name}/2025-01"]})
    data = ticks.tick("data_requests")
    assert partitions(data) == ["MMM/2025-01 ZZZ/2025-01 AAA/2025-01"]
    assert ticks.instance.get_dynamic_partitions("symbol") == ["MMM", "ZZZ", "AAA"]


def test_a_tick_is_bounded_and_the_next_one_goes_on(
    strategies: Strategies, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "MOST_RUNS_A_TICK", 2)
    for number in range(5):
        strategies.want({"bars": [f"BTCUSDT/20{17 + number}-01"]})
    found = []
    for _ in range(3):
        data = ticks.tick("data_requests")
        assert len(data.run_requests) <= 2
        found += partitions(data)
    assert found == [f"BTCUSDT/20{17 + number}-01" for number in range(5)]


def test_days_of_trades_and_series_have_runs_of_their_own(
    strategies: Strategies, ticks: Ticks, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "binance")
    monkeypatch.setenv("MDPLATFORM_FRED_API_KEY", "0" * 32)
    strategies.want({"trades": ["BTCUSDT/2025-01-31", "BTCUSDT/2025-02-01"], "macro_series": ["CPIAUCSL", "GDP"]})
    data = ticks.tick("data_requests")
    assert sorted((each.job_name, each.tags[PARTITIONS_TAG]) for each in data.run_requests) == [
        ("requested_macro_series", "CPIAUCSL GDP"),
        ("requested_trades", "BTCUSDT/2025-01-31 BTCUSDT/2025-02-01"),
    ]
    assert ticks.instance.get_dynamic_partitions("series") == ["CPIAUCSL", "GDP"]


@pytest.mark.parametrize(
    ("asset", "key", "reason"),
    [
        ("bars", "BTCUSDT/2001-01", "is outside of"),
        ("bars", "BTCUSDT/2999-01", "is outside of"),
        ("bars", "BTCUSDT/2025-1", "is no partition of bars"),
        ("bars", "../etc/2025-01", "is no partition of bars"),
        ("bars", "btcusdt/2025-01", "is no partition of bars"),
        ("bars", "BTCUSDT", "is no partition of bars"),
        ("trades", "BTCUSDT/2025-01", "is no partition of trades"),
        ("bars", "BTCUSDT/2025-13", "is no partition of bars"),
        ("bars", "", "is no partition of bars"),
        ("trades", "BTCUSDT/2025-01-31", "no source is known for trades of BTCUSDT"),
        ("macro_series", "CPI/../X", "is no series"),
        ("macro_series", "CPIAUCSL", "MDPLATFORM_FRED_API_KEY"),
        ("sentiment", "2025-01", "no run fetches sentiment"),
    ],
)
def test_what_no_run_can_bring_has_a_reason(settings: Settings, lake: Lake, asset: str, key: str, reason: str) -> None:
    wanted = RunWanted(
        request_id="0a", strategy_id="momentum", priority=DataPriority.LOW, partitions={asset: (key,)}, deadline=0
    )
    demand = coalesce([wanted], {}, {}, sensor.Reasons(lake, settings).against)
    assert demand.work == []
    assert reason in demand.refused["0a"]


def test_what_no_run_can_bring_goes_back_to_the_workers_with_the_reason(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.want({"bars": ["BTCUSDT/2001-01"]})
    assert ticks.tick("data_requests").run_requests == []
    (back,) = strategies.take()
    assert back.envelope.id == id
    assert back.returned
    assert "BTCUSDT/2001-01 is outside of" in back.note


def test_without_a_source_nothing_is_run_but_what_waits_in_the_inbox_is(
    strategies: Strategies, ticks: Ticks, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import raw_bars

    monkeypatch.delenv("MDPLATFORM_DATA_SOURCE")
    lake.inbox.stage("ETHUSDT", Timeframe.M15, "test", "0" * 64, raw_bars(50), datetime(2026, 1, 1, tzinfo=UTC))
    strategies.want({"bars": ["BTCUSDT/2025-01"]})
    strategies.want({"bars": ["ETHUSDT/2025-01"]})
    assert partitions(ticks.tick("data_requests")) == ["ETHUSDT/2025-01"]
    assert "set MDPLATFORM_DATA_SOURCE" in strategies.take()[0].note


def test_what_cannot_be_read_is_left_out_and_the_others_go_on(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want_raw(b"\xff\x00no message")
    strategies.want({"bars": ["BTCUSDT/2025-01"]})
    assert partitions(ticks.tick("data_requests")) == ["BTCUSDT/2025-01"]


def test_a_redis_that_is_killed_between_ticks_loses_nothing(
    processes: Processes, strategies: Strategies, ticks: Ticks
) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01"]})
    ticks.tick("data_requests")
    strategies.want({"bars": ["BTCUSDT/2025-02"]})
    os.kill(processes.server(), signal.SIGKILL)
    assert partitions(ticks.tick("data_requests")) == ["BTCUSDT/2025-02"]


def test_nothing_is_run_for_a_request_whose_deadline_has_passed(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01"]}, seconds=-1)
    assert ticks.tick("data_requests").run_requests == []


def test_who_asked_is_told_that_a_run_was_requested(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.want({"bars": ["BTCUSDT/2025-01", "BTCUSDT/2025-02"]})
    ticks.tick("data_requests")
    ((told, progress),) = strategies.replies()
    assert told == id
    assert isinstance(progress, Progress)
    assert (progress.stage, progress.text) == ("run_requested", "bars BTCUSDT/2025-01 … BTCUSDT/2025-02")


def test_a_run_that_failed_stands_for_its_partitions_for_a_while_though_others_go_on_asking(
    strategies: Strategies, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "FRESH_SECONDS", 1)
    strategies.want({"bars": ["BTCUSDT/2025-01"]})
    (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    ticks.instance.report_run_failed(run, "The source is away.")
    ended = time.monotonic()
    strategies.want({"bars": ["BTCUSDT/2025-01"]})
    assert ticks.tick("data_requests").run_requests == []
    while not (asked := ticks.tick("data_requests").run_requests) and time.monotonic() < ended + 10:
        strategies.want({"bars": ["BTCUSDT/2025-01"]})
    assert len(asked) == 1
    assert time.monotonic() - ended >= 0.9


def test_ids_that_a_tag_cannot_hold_as_they_are_have_tags_of_their_own() -> None:
    ids = ["a:b", "a_b", "a" * 63 + "b", "a" * 63 + "c", "a" * 63, "ä"]
    tags = {request_tag(each) for each in ids}
    assert len(tags) == len(ids)
    dg.RunRequest(tags=dict.fromkeys(tags, ""))
    assert all(len(each.partition("/")[2]) <= 63 for each in tags)


def test_a_run_asks_the_source_merges_and_makes_what_follows_of_the_missing_months_alone(
    strategies: Strategies, ticks: Ticks, lake: Lake
) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-02"]})
    (request,) = ticks.tick("data_requests").run_requests
    run = ticks.execute(request)
    assert run.is_success
    made = {
        (record.asset_key.to_user_string(), record.partition_key)
        for asset in ("bars", "technical_indicators")
        for record in ticks.instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
    }
    assert made == {("bars", "2025-02|BTCUSDT"), ("technical_indicators", "2025-02|BTCUSDT")}
    assert lake.bars.months("BTCUSDT") == ["2025-02"]
    assert lake.universe.members()["BTCUSDT"].source == "simulated"
