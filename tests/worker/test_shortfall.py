"""What is asked of sources: only what is missing, only where somebody can be asked, and no more than is sensible."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from mdplatform.lake import Lake
from mdplatform.market.time import month_range, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests.answer import Status
from mdplatform.requests.request import RequestType
from mdplatform.requests.wanted import needs
from mdplatform.settings import Settings
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.questions import questions
from mdplatform.worker.shortfall import shortfall
from tests.conftest import Market, raw_bars
from tests.worker.asking import ask, request

NOW = to_us(datetime(2025, 6, 10, 12, tzinfo=UTC))
SMA = "SMA(timeperiod=3)"


def at(text: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.fixture
def lake(market: Market) -> Lake:
    """Bars of January and March 2025 of one symbol, whose source is known, and of another that came from files."""
    for month, rows in (("2025-01", 2900), ("2025-03", 2900)):
        first = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)
        for symbol in ("BTCUSDT", "FILEUSDT"):
            market.deliver(symbol, raw_bars(rows, first=first))
    market.lake.universe.add("BTCUSDT", "simulated", Timeframe.M15)
    market.lake.universe.add("FILEUSDT", None, Timeframe.M15)
    return market.lake


def look(lake: Lake, settings: Settings, *, has_values: bool = True, over: bool = False, now: int = NOW, **asked):
    asked.setdefault("features", [SMA])
    return shortfall(
        lake, settings, [(each, has_values) for each in questions(request(**asked))], now, run_is_over=over
    )


def months(found) -> dict[str, list[str]]:
    by_symbol: dict[str, list[str]] = {}
    for key in found.partitions.get("bars", ()):
        symbol, _, month = key.partition("/")
        by_symbol.setdefault(symbol, []).append(month)
    return by_symbol


def test_a_range_wants_the_months_it_covers_and_no_other(lake, settings):
    found = look(lake, settings, start=at("2025-01-10"), end=at("2025-04-02"))
    assert months(found) == {"BTCUSDT": ["2025-02", "2025-04"]}
    assert "2 months from 2025-02 to 2025-04" in found.missing[0].cause
    assert "simulated" in found.missing[0].remedy
    inside = look(lake, settings, start=at("2025-03-10"), end=at("2025-03-20"))
    assert (inside.partitions, inside.missing) == ({}, ())


def test_the_warm_up_is_wanted_but_not_told_as_missing(lake, settings):
    found = look(lake, settings, start=at("2025-03-01"), end=at("2025-03-02"))
    assert months(found) == {"BTCUSDT": ["2025-02"]}
    assert found.missing == ()
    daily = look(lake, settings, features=["RSI"], timeframes=["1d"], start=at("2025-03-01"), end=at("2025-03-02"))
    assert months(daily)["BTCUSDT"][0] < "2024-06"
    assert "2025-03" not in months(daily)["BTCUSDT"]


def test_what_has_not_begun_and_what_is_before_the_calendar_are_not_wanted(lake, settings):
    found = look(lake, settings, start=at("2025-03-10"), end=at("2026-01-01"))
    assert months(found) == {"BTCUSDT": ["2025-04", "2025-05", "2025-06"]}
    open_ended = look(lake, settings, start=at("2025-03-10"))
    assert open_ended.partitions == {}
    late = settings.model_copy(update={"first_month": "2025-03"})
    assert months(look(lake, late, start=at("2025-01-10"), end=at("2025-04-01"))) == {}


def test_only_a_source_that_can_be_asked_makes_a_run_of_use(lake, settings):
    span = {"start": at("2025-01-10"), "end": at("2025-03-02")}
    of_files = look(lake, settings, symbols=["FILEUSDT"], **span)
    assert of_files.partitions == {}
    assert "mdplatform ingest" in of_files.missing[0].remedy
    assert "MDPLATFORM_DATA_SOURCE" in of_files.missing[0].remedy
    named = settings.model_copy(update={"data_source": "binance"})
    assert months(look(lake, named, symbols=["FILEUSDT"], **span)) == {"FILEUSDT": ["2025-02"]}
    wrong = settings.model_copy(update={"data_source": "nobody"})
    assert look(lake, wrong, symbols=["FILEUSDT"], **span).partitions == {}


def test_the_newest_rows_want_months_only_of_a_symbol_that_is_unknown(lake, settings):
    named = settings.model_copy(update={"data_source": "simulated"})
    assert look(lake, named, latest=5000).partitions == {}
    new = look(lake, named, symbols=["BTCUSDT", "NEWUSDT"], has_values=False)
    assert months(new) == {"NEWUSDT": ["2025-06"]}
    longer = look(lake, named, symbols=["NEWUSDT"], features=["RSI"], timeframes=["1h"], latest=1000, has_values=False)
    assert months(longer) == {"NEWUSDT": ["2025-04", "2025-05", "2025-06"]}
    elsewhere = look(lake, named, features=[{"name": "SMA", "symbol": "NEWUSDT"}], has_values=False)
    assert months(elsewhere) == {"NEWUSDT": ["2025-06"]}


def test_a_matrix_wants_the_bars_of_unknown_symbols(lake, settings):
    named = settings.model_copy(update={"data_source": "simulated"})
    more = {"type": RequestType.CORRELATION_MATRIX, "features": (), "options": {"window": 3000}}
    found = look(lake, named, symbols=["BTCUSDT", "NEWUSDT"], timeframes=["15m"], **more)
    assert months(found) == {"NEWUSDT": ["2025-05", "2025-06"]}
    assert [each.symbol for each in found.missing] == ["NEWUSDT"]


def test_more_than_a_request_may_fetch_is_told_with_the_remedy(lake, settings):
    named = settings.model_copy(update={"data_source": "simulated"})
    long = look(lake, named, symbols=["NEWUSDT"], start=at("2018-01-01"), end=at("2024-01-01"))
    assert long.partitions == {}
    assert "mdplatform ingest simulated:NEWUSDT --from 2018-01 --to 2023-12" in long.too_much[0].remedy
    many = look(lake, named, symbols=[f"S{n}" for n in range(21)], has_values=False)
    assert many.partitions == {}
    assert "backfill" in many.too_much[0].remedy


def test_the_newest_rows_of_an_unknown_symbol_want_no_more_than_a_request_may_fetch(lake, settings):
    named = settings.model_copy(update={"data_source": "simulated"})
    slow = {"symbols": ["NEWUSDT"], "features": ["EMA(timeperiod=200)"], "timeframes": ["1d"], "has_values": False}
    for latest in (1, 100_000):
        found = look(lake, named, latest=latest, **slow)
        assert (len(found.partitions["bars"]), found.too_much) == (60, ())
        assert found.partitions["bars"][-1] == "NEWUSDT/2025-06"


def test_trades_are_wanted_of_days_that_have_none_where_somebody_has_them(lake, settings):
    features = ["DELTA(method=trades)", "VOLUME_PROFILE(row_size=0.5)"]
    span = {"start": at("2025-03-04"), "end": at("2025-03-06")}
    named = settings.model_copy(update={"data_source": "binance"})
    found = look(lake, named, symbols=["FILEUSDT"], features=features, **span)
    assert set(found.partitions) == {"trades"}
    assert found.partitions["trades"][-3:] == tuple(f"FILEUSDT/2025-03-0{day}" for day in (3, 4, 5))
    assert look(lake, settings, symbols=["FILEUSDT"], features=features, **span).partitions == {}
    assert look(lake, settings, features=features, **span).partitions == {}, "the simulated market has no trades"
    newest = {"symbols": ["FILEUSDT"], "features": ["DELTA(method=trades)"]}
    assert look(lake, named, **newest).partitions == {}
    assert look(lake, named, has_values=False, **newest).partitions["trades"][-1] == "FILEUSDT/2025-03-31"


def test_a_series_of_which_there_is_nothing_is_wanted_where_fred_can_be_asked(lake, settings):
    more = {"type": RequestType.MACRO_INDICATORS, "symbols": (), "features": (), "timeframes": ()}
    options = {"series": ["CPIAUCSL", "DGS10"]}
    assert look(lake, settings, options=options, has_values=False, **more).partitions == {}
    keyed = Settings(home=settings.home, fred_api_key="a" * 32)
    found = look(lake, keyed, options=options, has_values=False, **more)
    assert found.partitions == {"macro_series": ("CPIAUCSL", "DGS10")}
    on_grid = look(lake, keyed, features=["MACRO(series=CPIAUCSL)"], has_values=False)
    assert on_grid.partitions == {"macro_series": ("CPIAUCSL",)}


def test_what_runs_did_not_bring_is_not_wanted_again(lake, settings):
    found = look(lake, settings, start=at("2025-01-10"), end=at("2025-03-02"), over=True)
    assert found.partitions == {}
    assert "did not give them" in found.missing[0].remedy


def test_the_evaluator_waits_where_a_run_helps_and_answers_what_there_is_where_none_does(lake, settings, processes):
    span = {"start": at("2025-01-31"), "end": month_range("2025-03")[1], "features": [SMA]}

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return (
                await ask(one, ["BTCUSDT", "FILEUSDT"], **span),
                await ask(one, runs_over=True, **span),
                await ask(one, ["FILEUSDT"], **span),
                await ask(one, start=at("2025-03-02"), end=at("2025-03-03"), features=[SMA]),
                await ask(one, features=[SMA]),
                await ask(one, ["NEWUSDT"]),
            )

    waits, over, files, whole, newest, unknown = asyncio.run(asked())
    assert waits.wanted is not None
    assert waits.wanted.partitions == {"bars": ("BTCUSDT/2025-02",)}
    assert waits.wanted.request_id == waits.body.request_id
    assert waits.needs == ("bars/BTCUSDT", "bars/FILEUSDT")
    for outcome in (waits, over, files):
        assert outcome.body.status == Status.PARTIAL
        assert "2025-02" in outcome.body.missing[0].cause
        assert outcome.body.parts[0].quality.completeness < 1
    assert over.wanted is files.wanted is None
    for outcome in (whole, newest):
        assert (outcome.body.status, outcome.wanted, outcome.body.missing) == (Status.OK, None, ())
    assert unknown.body.status == Status.FAILED
    assert unknown.body.problem.error == "UnknownSymbol"


def test_what_runs_brought_is_said_to_come_from_there(lake, settings, processes, market):
    waiting = request(start=at("2025-01-31"), end=month_range("2025-03")[1], features=[SMA])

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            (before,) = await one.evaluate([waiting])
            market.deliver("BTCUSDT", raw_bars(28 * 96, first=datetime(2025, 2, 1, tzinfo=UTC)))
            brought = {waiting.request_id: dict.fromkeys(needs(before.wanted), "r1")}
        async with Evaluator(settings, worker="b") as other:
            (after,) = await other.evaluate([waiting], (), brought)
            (hit,) = await other.evaluate([waiting], (), brought)
            (later,) = await other.evaluate([waiting])
            return before, (after, hit), later, other.answered_by_layer

    before, waited, later, counted = asyncio.run(asked())
    assert before.wanted is not None
    for after in waited:
        assert (after.wanted, after.body.status) == (None, Status.OK)
        (part,) = after.body.parts
        assert (part.source, part.layer, part.run_id) == ("run", "run", "r1")
    assert [(each.source, each.run_id) for each in later.body.parts] == [("cache", "")]
    assert counted["run"] == 2


@pytest.mark.parametrize(("first", "end"), [("2009-02-01", "2009-03-01"), ("2099-02-01", "2099-03-01")])
def test_a_range_outside_of_the_calendar_is_told_as_such_and_not_as_an_unknown_symbol(settings, first, end):
    async def asked():
        async with Evaluator(settings, worker="worker-1") as evaluator:
            asked_for = request(symbols=("NOSUCHUSDT",), features=[SMA], start=at(first), end=at(end))
            return (await evaluator.evaluate([asked_for]))[0]

    body = asyncio.run(asked()).body
    assert body.status is Status.FAILED
    assert body.problem.cause == "The range is outside of the calendar, 2017-01 to now"
    assert body.problem.remedy == "Ask for a range within it"
