"""Tables in the lake: what waits, what merging makes of it, and what a reader sees."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdplatform.lake.tables
from mdplatform.errors import CorruptPartition, InvalidTable
from mdplatform.lake import Lake
from mdplatform.lake.partition import Partition, write_partition
from mdplatform.lake.sql import ask
from mdplatform.lake.tables import TableStore
from mdplatform.market.macro import MACRO
from mdplatform.market.trades import TRADES

DAY = datetime(2025, 1, 31, tzinfo=UTC)
NOW = datetime(2025, 2, 3, tzinfo=UTC)
KEY = "BTCUSDT/2025-01-31"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return Lake(tmp_path).table("trades")


def trades(*rows: tuple[int, float], symbol: str = "BTCUSDT", start: datetime = DAY) -> pl.DataFrame:
    """Rows of (id, price), a second after another."""
    times = [start + timedelta(seconds=number) for number, _ in rows]
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(rows),
            "trade_id": [number for number, _ in rows],
            "time": times,
            "price": [price for _, price in rows],
            "quantity": [1.0] * len(rows),
            "is_buyer_maker": [False] * len(rows),
            "available_at": times,
        },
        schema=TRADES.delivered,
    )


def later(hours: int) -> datetime:
    return NOW + timedelta(hours=hours)


def test_a_delivery_waits_by_partition_until_it_is_merged(store: TableStore) -> None:
    rows = pl.concat([trades((86_399, 1.0), (86_400, 2.0)), trades((1, 3.0), symbol="ETHUSDT")])
    assert store.stage(rows, "test", NOW) == [KEY, "BTCUSDT/2025-02-01", "ETHUSDT/2025-01-31"]
    assert store.waiting() == [KEY, "BTCUSDT/2025-02-01", "ETHUSDT/2025-01-31"]
    assert store.keys() == []
    merged = store.merge(KEY)
    assert (merged.taken, merged.unchanged, merged.corrected, merged.changed) == (1, 0, 0, True)
    assert store.keys() == [KEY]
    assert store.keys("ETHUSDT/") == []
    assert KEY not in store.waiting()
    row = store.read([KEY]).row(0, named=True)
    assert (row["source"], row["revision"], row["ingested_at"]) == ("test", 0, NOW)


def test_the_same_again_changes_nothing_and_does_not_wait(store: TableStore) -> None:
    store.stage(trades((1, 1.0), (2, 2.0)), "test", NOW)
    version = store.merge(KEY).data_version
    [staged] = store.deliver(trades((1, 1.0), (2, 2.0)), "elsewhere", later(1))
    assert (staged.waits, staged.rows) == (False, 2)
    assert store.waiting() == []
    store.stage(trades((2, 2.0), (1, 1.0), (1, 1.0)), "another order", later(2))
    again = store.merge(KEY)
    assert (again.taken, again.corrected, again.changed, again.data_version) == (0, 0, False, version)
    assert store.merge(KEY).data_version == version


def test_a_correction_is_a_revision_and_the_old_one_stays_readable(store: TableStore) -> None:
    store.stage(trades((1, 1.0), (2, 2.0), (3, 3.0)), "first", NOW)
    store.merge(KEY)
    store.stage(trades((2, 9.0), (4, 4.0)), "second", later(1))
    merged = store.merge(KEY)
    assert (merged.taken, merged.unchanged, merged.corrected) == (1, 0, 1)
    assert store.read([KEY])["price"].to_list() == [1.0, 9.0, 3.0, 4.0]
    assert store.read([KEY], as_of=NOW)["price"].to_list()[:3] == [1.0, 2.0, 3.0]
    assert store.read([KEY], as_of=later(1))["price"].to_list() == [1.0, 9.0, 3.0, 4.0]
    store.stage(trades((2, 2.0)), "third", later(2))  # back to the first value: a third revision
    assert store.merge(KEY).corrected == 1
    assert store.read([KEY])["revision"].to_list() == [0, 2, 0, 0]


def test_an_old_delivery_that_comes_again_does_not_undo_a_correction(store: TableStore) -> None:
    first = trades((1, 1.0), (2, 2.0))
    for hours, rows in ((0, first), (1, trades((2, 9.0))), (2, first)):
        store.stage(rows, f"at {hours}", later(hours))
        store.merge(KEY)
    assert store.read([KEY])["price"].to_list() == [1.0, 9.0]


def test_deliveries_are_merged_in_the_order_they_were_staged(store: TableStore) -> None:
    store.stage(trades((1, 2.0)), "later", later(1))
    store.stage(trades((1, 1.0)), "earlier", NOW)
    merged = store.merge(KEY)
    assert (merged.taken, merged.corrected) == (1, 1)
    assert store.read([KEY])["price"].to_list() == [2.0]


@given(
    deliveries=st.lists(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=6), max_size=5)
)
@settings(max_examples=15, deadline=None)
def test_merging_is_the_same_whether_each_delivery_is_merged_by_itself_or_all_at_once(
    deliveries: list[list[tuple[int, int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The last value of an id wins (a dictionary tells it), and revisions count the changes."""
    expected: dict[int, int] = {}
    changes: dict[int, int] = {}
    seen: list[list[tuple[int, int]]] = []
    distinct = [sorted(dict(rows).items()) for rows in deliveries]
    for rows in distinct:
        if rows not in seen:
            for number, price in rows:
                if number in expected and expected[number] != price:
                    changes[number] = changes.get(number, 0) + 1
                expected[number] = price
        seen.append(rows)
    results = []
    for each_by_itself in (True, False):
        store = Lake(tmp_path_factory.mktemp("lake")).table("trades")
        for at, rows in enumerate(distinct):
            store.stage(trades(*((number, float(price)) for number, price in rows)), "test", later(at))
            if each_by_itself:
                store.merge(KEY)
        store.merge(KEY)
        results.append(store.read([KEY]).drop("ingested_at"))
    assert results[0].equals(results[1])
    assert dict(results[0].select("trade_id", "price").iter_rows()) == expected
    assert dict(results[0].select("trade_id", "revision").iter_rows()) == {n: changes.get(n, 0) for n in expected}


def test_reading_a_range_gives_its_rows_alone(store: TableStore) -> None:
    store.stage(trades(*((number, 1.0) for number in range(10))), "test", NOW)
    store.merge(KEY)
    at = int(DAY.timestamp()) * 10**6
    assert store.read([KEY], at + 3 * 10**6, at + 5 * 10**6)["trade_id"].to_list() == [3, 4]
    assert store.read([KEY, "NONE/2025-01-31"], at + 99 * 10**6).is_empty()
    assert store.read([], as_of=NOW).schema == TRADES.schema


def test_single_and_aggregated_rows_do_not_go_into_one_partition(store: TableStore) -> None:
    store.deliver(trades((1, 1.0)), "single", NOW, form="single trades")
    with pytest.raises(InvalidTable, match="counted twice"):
        store.deliver(trades((1, 1.0), (90_000, 1.0)), "aggregated", NOW, form="aggregated trades")
    store.merge(KEY)
    with pytest.raises(InvalidTable, match="counted twice"):
        store.deliver(trades((2, 1.0)), "aggregated", later(1), form="aggregated trades")
    assert store.waiting() == []
    store.deliver(trades((2, 1.0)), "unknown", later(1))
    store.deliver(trades((3, 1.0)), "single", later(1), form="single trades")
    assert store.merge(KEY).taken == 2


def test_what_was_staged_by_one_call_can_be_taken_back(store: TableStore) -> None:
    [earlier] = store.deliver(trades((1, 1.0)), "earlier", NOW)
    both = store.deliver(pl.concat([trades((1, 1.0)), trades((90_000, 1.0))]), "later", later(1))
    assert store.waiting() == [KEY, "BTCUSDT/2025-02-01"]
    for each in both:
        store.take_back(each)
    assert earlier.path is not None
    assert earlier.path.exists()
    assert store.waiting() == [KEY]


@pytest.mark.parametrize("hours", [0, 1])
def test_what_two_delivered_at_once_stays_when_the_first_takes_its_own_back(tmp_path: Path, hours: int) -> None:
    refused, other = (Lake(tmp_path).table("trades") for _ in range(2))
    [first] = refused.deliver(trades((1, 1.0), (2, 2.0)), "the same", NOW)
    [second] = other.deliver(trades((1, 1.0), (2, 2.0)), "the same", later(hours))
    refused.take_back(first)
    refused.take_back(first)
    assert second.waits
    assert other.merge(KEY).taken == 2
    assert other.waiting() == []


def test_what_two_delivered_at_once_is_taken_and_counted_once(store: TableStore) -> None:
    for hours in range(3):
        store.deliver(trades((1, 1.0), (2, 2.0)), "the same", later(hours))
    merged = store.merge(KEY)
    assert (merged.taken, merged.unchanged, merged.corrected) == (2, 0, 0)
    assert store.read([KEY])["ingested_at"].to_list() == [NOW, NOW]
    assert (store.waiting(), store.merge(KEY).taken) == ([], 0)


def test_what_is_taken_back_while_it_is_merged_is_left_out(store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    [first] = store.deliver(trades((1, 1.0)), "refused", NOW)
    partition = store.partition

    def taking_back(key: str) -> Partition | None:
        store.take_back(first)  # what waits has been listed by then
        return partition(key)

    monkeypatch.setattr(store, "partition", taking_back)
    assert (store.merge(KEY).taken, store.keys()) == (0, [])
    [first] = store.deliver(trades((1, 1.0)), "refused", NOW)
    store.deliver(trades((2, 2.0)), "other", later(1))
    assert store.merge(KEY).taken == 1
    assert store.read([KEY])["trade_id"].to_list() == [2]


def test_a_delivery_that_fails_half_way_leaves_nothing_waiting(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(path: Path, *more: object) -> object:
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return write_partition(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(mdplatform.lake.tables, "write_partition", full)
    with pytest.raises(OSError, match="No space"):
        store.deliver(trades((1, 1.0), (90_000, 1.0)), "test", NOW)
    assert (len(written), store.waiting()) == (2, [])


def test_what_a_killed_merge_left_behind_is_cleared_when_the_same_comes_again(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        store.stage(trades((1, 1.0)), "test", NOW)
        store.merge(KEY)
    store.stage(trades((2, 1.0)), "other", NOW)
    [again] = store.deliver(trades((1, 1.0)), "test", later(1))
    assert not again.waits
    assert store.merge(KEY).taken == 1
    assert store.waiting() == []


def test_rows_that_are_set_aside_are_in_the_quarantine_once(store: TableStore, tmp_path: Path) -> None:
    aside = pl.DataFrame({"rule": ["price_missing"], "row": ["{}"]})
    for hours in range(2):
        store.set_aside(aside, "test", later(hours))
        store.set_aside(aside.clear(), "test", later(hours))
    assert ask(tmp_path, "select count(*) from quarantine").item() == 1


@pytest.mark.parametrize("key", ["", "../x", "/etc", "a//b", "a/../b", ".hidden", "a b", "a/b/"])
def test_what_is_no_key_is_refused(store: TableStore, key: str) -> None:
    with pytest.raises(InvalidTable):
        store.path(key)


def test_rows_of_another_form_or_without_a_time_are_refused(store: TableStore) -> None:
    with pytest.raises(InvalidTable):
        store.stage(trades((1, 1.0)).drop("price"), "test", NOW)
    with pytest.raises(InvalidTable, match="without a time"):
        store.stage(trades((1, 1.0)).with_columns(pl.lit(None, TRADES.delivered["time"]).alias("time")), "test", NOW)
    with pytest.raises(InvalidTable):
        store.stage(trades((1, 1.0), symbol="../../etc"), "test", NOW)
    assert store.waiting() == []
    assert store.stage(trades(), "nothing", NOW) == []


def test_a_damaged_partition_is_named_and_nothing_is_written_over_it(store: TableStore) -> None:
    store.stage(trades((1, 1.0)), "test", NOW)
    store.merge(KEY)
    store.path(KEY).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(CorruptPartition, match=r"2025-01-31\.parquet"):
        store.read([KEY])
    with pytest.raises(CorruptPartition):
        store.stage(trades((2, 1.0)), "test", later(1))
    assert store.path(KEY).read_bytes() == b"PAR1 nothing PAR1"


def test_series_are_filed_by_name_and_their_vintages_are_rows_of_their_own(tmp_path: Path) -> None:
    store = Lake(tmp_path).table("macro")
    rows = pl.DataFrame(
        {
            "series_id": ["CPI", "CPI", "M2"],
            "ref_period": [datetime(2025, 1, 1, tzinfo=UTC)] * 3,
            "value": [1.0, 2.0, None],
            "published_at": [DAY, NOW, DAY],
            "vintage": [DAY, NOW, DAY],
            "available_at": [DAY, NOW, DAY],
        },
        schema=MACRO.delivered,
    )
    assert store.stage(rows, "test", NOW) == ["CPI", "M2"]
    assert store.merge("CPI").taken == 2
    assert store.read(["CPI"])["value"].to_list() == [1.0, 2.0]
    assert store.read(["CPI"], as_of=DAY)["value"].to_list() == [1.0]


def test_sql_shows_the_newest_rows_under_the_name_and_all_under_revisions(tmp_path: Path) -> None:
    store = Lake(tmp_path).table("trades")
    aside = pl.DataFrame({"rule": ["price_missing"], "row": ['{"price":null}']})
    store.deliver(trades((1, 1.0), (2, 2.0)), "first", NOW)
    store.set_aside(aside, "first", NOW)
    store.merge(KEY)
    store.stage(trades((2, 9.0)), "second", later(1))
    store.merge(KEY)
    store.stage(trades((5, 5.0)), "waits", later(2))
    assert ask(tmp_path, "select trade_id, price from trades order by all").rows() == [(1, 1.0), (2, 9.0)]
    assert ask(tmp_path, "select trade_id, revision from trades_revisions order by all").rows() == [
        (1, 0),
        (2, 0),
        (2, 1),
    ]
    assert ask(tmp_path, "select dataset, rule, row, symbol from quarantine").rows() == [
        ("trades", "price_missing", '{"price":null}', None)
    ]


def test_sql_gives_spans_of_time_as_texts(tmp_path: Path) -> None:
    answer = ask(tmp_path, 'select interval 90 minutes as a, 1 as "b""c"')
    assert answer.row(0, named=True) == {"a": "01:30:00", 'b"c': 1}


MERGER = """
    import sys
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    import polars as pl
    from mdplatform.lake import Lake
    from mdplatform.market.trades import TRADES

    number = int(sys.argv[2])
    store = Lake(Path(sys.argv[1])).table("trades")
    start = datetime(2025, 1, 31, tzinfo=UTC)
    print("ready", flush=True)
    sys.stdin.readline()
    for piece in range(25):
        ids = [1_000_000 * number + 1_000 * piece + each for each in range(500)]
        times = [start + timedelta(milliseconds=each) for each in ids]
        rows = pl.DataFrame({
            "symbol": ["BTCUSDT"] * 500, "trade_id": ids, "time": times, "price": [1.0] * 500,
            "quantity": [1.0] * 500, "is_buyer_maker": [True] * 500, "available_at": times,
        }, schema=TRADES.delivered)
        store.stage(rows, f"{number} {piece}", start + timedelta(days=1, seconds=piece))
        store.merge("BTCUSDT/2025-01-31")
"""


def start_merger(folder: Path, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(MERGER), str(folder), str(number)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_lose_nothing_and_one_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    store = Lake(tmp_path).table("trades")
    victim, other = start_merger(tmp_path, 1), start_merger(tmp_path, 2)
    go(victim)
    go(other)
    seen, of_victim = 0, 0
    while of_victim < 1_500:  # both merge; each reader sees whole deliveries
        rows = store.read([KEY])
        assert rows.height % 500 == 0
        assert rows.height >= seen
        assert victim.poll() is None
        seen, of_victim = rows.height, rows.filter(pl.col("trade_id") < 2_000_000).height
    victim.kill()
    victim.communicate()
    assert other.wait(timeout=60) == 0
    other.communicate()
    store.merge(KEY)  # what the victim staged and did not merge
    rows = store.read([KEY])
    assert rows["trade_id"].n_unique() == rows.height
    assert rows["revision"].max() == 0
    assert rows.filter(pl.col("trade_id") >= 2_000_000).height == 12_500
    pieces = rows.filter(pl.col("trade_id") < 2_000_000)["trade_id"] // 1_000 - 1_000
    assert pieces.value_counts()["count"].unique().to_list() == [500]
    assert pieces.unique().sort().to_list() == list(range(len(pieces) // 500))
    assert store.waiting() == []
