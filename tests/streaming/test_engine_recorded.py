"""A recorded session, replayed live, gives the very lake that a batch gives of the same messages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from mdplatform.feeds.registry import feed
from mdplatform.lake import Lake
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging.memory_broadcast import MemoryBroadcast
from mdplatform.settings import Settings
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableOptions
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.standing import Standing

from .scripted import in_loop

RECORDING = "live/nkaz001__hftbacktest/examples/spot/btcusdt_20240808.gz"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def batch_bars(path: Path) -> pl.DataFrame:
    """Bars of 1m from the recording's trades, as a file has them; the first and the last minute are not whole."""
    deliveries = list(read_recording(path, TableOptions(max_bytes=10**9)))
    trades = next(each.rows for each in deliveries if each.dataset.name == "trades").unique("trade_id").sort("trade_id")
    opens = trades["time"].dt.epoch("us") // MINUTE_US * MINUTE_US
    rows = []
    for (open_time,), part in trades.with_columns(opens.alias("minute")).group_by("minute", maintain_order=True):
        exact = [
            (Decimal(str(p)), Decimal(str(q)), not m) for p, q, m in part["price", "quantity", "is_buyer_maker"].rows()
        ]
        rows.append(
            (
                open_time,
                open_time + MINUTE_US,
                part["price"][0],
                part["price"].max(),
                part["price"].min(),
                part["price"][-1],
                float(sum(q for _, q, _ in exact)),
                float(sum(p * q for p, q, _ in exact)),
                part.height,
                float(sum(q for _, q, bought in exact if bought)),
                float(sum(p * q for p, q, bought in exact if bought)),
            )
        )
    plain = {name: pl.Int64() if name.endswith("_time") else kind for name, kind in RAW_SCHEMA.items()}
    return pl.DataFrame(sorted(rows)[1:-1], schema=plain, orient="row").cast(RAW_SCHEMA)


@in_loop
async def test_a_recorded_session_gives_the_lake_of_a_batch_bit_for_bit(
    settings: Settings, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdplatform.streaming.engine.STAGE_SECONDS", 1000)  # all is staged at one instant, at the end
    replayed = feed(f"recording:{shared_data / RECORDING}", settings, [])
    broadcaster = MemoryBroadcast(settings).broadcaster()
    engine = Engine(settings, replayed, broadcaster, Standing(["BTCUSDT"], [Timeframe.M1, Timeframe.M5]))
    engine.journal._clock = lambda: int(AT.timestamp()) * 1_000_000
    await engine.run()
    bars = batch_bars(shared_data / RECORDING)
    whole = Lake(tmp_path / "batch")
    for batch in whole.inbox.stage("BTCUSDT", Timeframe.M1, "recording", "k", bars, AT):
        whole.bars.merge("BTCUSDT", batch.month, [batch])
    assert engine.lake.bars.months("BTCUSDT") == whole.bars.months("BTCUSDT") == ["2024-08"]
    live, made = engine.lake.bars.partition("BTCUSDT", "2024-08"), whole.bars.partition("BTCUSDT", "2024-08")
    assert live is not None
    assert made is not None
    assert live.header.groups["1m"].rows >= 5
    assert live.header.data_version == made.header.data_version
