"""What workers made is recorded once a partition and tick, and makes nothing run."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import pytest

from mdplatform.requests.ids import new_id
from mdplatform.requests.wanted import Made
from mdplatform.sensors import lineage as sensor
from mdplatform.sensors.lineage import PARTITIONED
from tests.sensors.conftest import DEFINITIONS, Strategies, Ticks


def made(partition: str = "BTCUSDT/2025-01", **told: Any) -> Made:
    plain = {
        "asset": "technical_indicators",
        "feature": "RSI(timeperiod=14)",
        "timeframe": "1h",
        "version": "v1",
        "rows": 1,
        "worker": "worker-1",
        "request_id": new_id(),
        "strategy_id": "momentum",
        "at": time.time_ns() // 1000,
        "took_ms": 1.5,
    }
    return Made(partition=partition, **(plain | told))


def recorded(ticks: Ticks, asset: str = "technical_indicators") -> list[tuple[str | None, dict[str, Any]]]:
    records = ticks.instance.fetch_materializations(dg.AssetKey(asset), limit=100, ascending=True).records
    return [
        (each.partition_key, {name: value.value for name, value in each.asset_materialization.metadata.items()})
        for each in records
        if each.asset_materialization
    ]


def test_the_last_of_each_partition_is_recorded_with_a_summary_of_all(strategies: Strategies, ticks: Ticks) -> None:
    strategies.made(
        made(took_ms=2.0),
        made(took_ms=9.0, strategy_id="scalper", worker="worker-2"),
        made("ETHUSDT/2025-01"),
        made(feature="MACD", version="v2", took_ms=1.0),
    )
    ticks.tick("lineage")
    found = dict(recorded(ticks))
    assert set(found) == {"2025-01|BTCUSDT", "2025-01|ETHUSDT"}
    told = found["2025-01|BTCUSDT"]
    assert (told["computations"], told["slowest_ms"], told["last_version"]) == (3, 9.0, "v2")
    assert told["strategies"] == {"momentum": 2, "scalper": 1}
    assert told["workers"] == {"worker-1": 2, "worker-2": 1}
    assert told["features"] == {"RSI(timeperiod=14)@1h": 2, "MACD@1h": 1}
    assert sorted(ticks.instance.get_dynamic_partitions("symbol")) == ["BTCUSDT", "ETHUSDT"]


def test_a_tick_is_bounded_and_the_next_one_goes_on_without_a_loss(
    strategies: Strategies, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "MOST_EVENTS_A_TICK", 3)
    strategies.made(*(made(f"SYM{number % 5}/2025-01") for number in range(10)))
    for _ in range(10):
        events = ticks.tick("lineage").asset_events
        if not events:
            break
        assert len(events) <= 3
    assert sum(told["computations"] for _, told in recorded(ticks)) == 10


def test_what_was_recorded_is_dropped_from_the_outbox_a_tick_later(strategies: Strategies, ticks: Ticks) -> None:
    strategies.made(made())
    lost = ticks.evaluate("lineage")  # the daemon dies before it stores this
    assert len(ticks.tick("lineage").asset_events) == len(lost.asset_events) == 1
    assert ticks.tick("lineage").asset_events == []
    assert ticks.evaluate("lineage").asset_events == []  # as if the cursor had been reset


def test_what_is_no_partition_is_left_out_and_the_others_go_on(strategies: Strategies, ticks: Ticks) -> None:
    strategies.made(
        b"\xff no message",
        made(asset="bars"),
        made("BTCUSDT"),
        made("BTCUSDT/2001-01"),
        made("BTCUSDT/2999-01"),
        made("2025-01", asset="correlation_matrix"),
        made("CPIAUCSL", asset="macro_features"),
        made("BTCUSDT/2025-01-31", asset="volume_profile"),
    )
    events = ticks.tick("lineage").asset_events
    assert [(each.asset_key.to_user_string(), str(each.partition)) for each in events] == [
        ("correlation_matrix", "2025-01"),
        ("macro_features", "CPIAUCSL"),
        ("volume_profile", "2025-01-31|BTCUSDT"),
    ]
    assert ticks.instance.get_dynamic_partitions("series") == ["CPIAUCSL"]


def test_assets_of_lineage_are_partitioned_as_the_definitions_say() -> None:
    graph = DEFINITIONS.resolve_asset_graph()
    assert {name: graph.get(dg.AssetKey(name)).partitions_def for name in PARTITIONED} == PARTITIONED


def test_what_workers_made_makes_no_asset_run(strategies: Strategies, ticks: Ticks) -> None:
    strategies.made(made(), made("BTCUSDT/2025-01-31", asset="order_flow"), made("2025-01", asset="correlation_matrix"))
    cursor = None
    asked = 0
    for _ in range(3):
        ticks.tick("lineage")
        result = dg.evaluate_automation_conditions(DEFINITIONS, ticks.instance, cursor=cursor)
        cursor = result.cursor
        asked += result.total_requested
    assert asked == 0
    assert len(recorded(ticks)) == 1
