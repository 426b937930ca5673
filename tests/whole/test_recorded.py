"""A recorded session through `mdplatform feed`, as a process: the very lake that a batch gives of the same messages."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdplatform.lake import Lake
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.processes import platform_program
from mdplatform.settings import Settings
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableOptions

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


@pytest.mark.usefixtures("processes")
def test_a_recorded_session_through_the_command_gives_the_lake_of_a_batch_bit_for_bit(
    settings: Settings, shared_data: Path, tmp_path: Path
) -> None:
    recording = shared_data / RECORDING
    program = platform_program(settings, "feed", "feed", f"recording:{recording}", one_thread=True)
    ended = subprocess.run(program.command, env=dict(program.environment), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    batch = Lake(tmp_path / "batch")
    for piece in batch.inbox.stage("BTCUSDT", Timeframe.M1, "recording", "k", batch_bars(recording), AT):
        batch.bars.merge("BTCUSDT", piece.month, [piece])
    live = Lake(settings.lake_dir)
    assert live.bars.months("BTCUSDT") == ["2024-08"]
    assert live.bars.read("BTCUSDT", Timeframe.M1).height >= 5
    assert live.inbox.symbols() == []
    for timeframe in (Timeframe.M1, Timeframe.M3, Timeframe.M5):
        made = live.bars.read("BTCUSDT", timeframe)
        assert_frame_equal(
            made.drop("ingested_at"), batch.bars.read("BTCUSDT", timeframe).drop("ingested_at"), check_exact=True
        )
