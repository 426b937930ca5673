"""Equal work is done once: by all who ask in one process, and by all the workers of a home."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading

import pytest

from mdplatform.market.quality import Tally
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.answer import Part, Status
from mdplatform.requests.request import RequestType
from mdplatform.serving.lookup import Library
from mdplatform.serving.publisher import Publisher
from mdplatform.valkey.connection import async_connect, connect
from mdplatform.worker import workshop
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.lending import Lending
from mdplatform.worker.near import Witness, kept_part
from tests.conftest import raw_bars
from tests.features.kinds import world
from tests.worker.asking import RSI, ask, request, rows


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch):
    """Computations that begin and go on when they are let."""
    begun, go_on, original = threading.Event(), threading.Event(), workshop.feature_blobs

    def held(*args):
        begun.set()
        assert go_on.wait(20)
        return original(*args)

    monkeypatch.setattr(workshop, "feature_blobs", held)
    yield begun, go_on
    go_on.set()


def _held_up(monkeypatch):
    """Have computations of BTCUSDT wait for the event that is given."""
    original, slow = workshop.feature_blobs, threading.Event()

    def blobs(lake, symbol, *rest):
        if symbol == "BTCUSDT":
            assert slow.wait(20)
        return original(lake, symbol, *rest)

    monkeypatch.setattr(workshop, "feature_blobs", blobs)
    return slow


def test_a_thousand_equal_requests_over_two_workers_cost_one_computation(settings, processes, market):
    market.walk("BTCUSDT", 1200)

    async def asked():
        async with Evaluator(settings, worker="a") as one, Evaluator(settings, worker="b") as other:
            tasks = [ask((one, other)[number % 2], priority=DataPriority.LOW) for number in range(1000)]
            return await asyncio.gather(*tasks), one.computations + other.computations

    outcomes, computations = asyncio.run(asked())
    assert computations == 1
    assert {each.body.status for each in outcomes} == {Status.OK}
    assert len({each.body.parts[0].version for each in outcomes}) == 1
    assert len({each.body.parts[0].data for each in outcomes}) == 1
    assert sum(len(each.made) for each in outcomes) == 1


def test_a_batch_and_what_asks_for_more_of_the_same_share_a_computation(settings, processes, market):
    market.walk("BTCUSDT", 1200)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            many = [request(features=[RSI, "MACD", "MACD_HISTOGRAM"], latest=number + 1) for number in range(50)]
            return await one.evaluate(many), one.computations

    outcomes, computations = asyncio.run(asked())
    assert computations == 2, "RSI, and MACD with all its outputs"
    assert [each.body.parts[2].rows for each in outcomes] == list(range(1, 51))
    assert rows(outcomes[9].body.parts[2]).columns[2].endswith(".macdhist")


def test_ranges_that_are_equal_are_computed_once(settings, processes, market):
    bars = market.walk("BTCUSDT", 1200)
    start = int(bars["open_time"].dt.epoch("us")[300])

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            await asyncio.gather(*(ask(one, start=start, end=start + 10**10) for _ in range(20)))
            return one.computations

    assert asyncio.run(asked()) == 1


def test_one_who_gives_up_takes_no_other_along(settings, processes, market, held_back):
    market.walk("BTCUSDT", 1200)
    begun, go_on = held_back

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            first = asyncio.create_task(ask(one))
            await asyncio.to_thread(begun.wait, 10)
            second = asyncio.create_task(ask(one))
            await asyncio.sleep(0)
            first.cancel()
            go_on.set()
            await asyncio.wait([first])
            return await second, first.cancelled(), one.computations

    outcome, was_cancelled, computations = asyncio.run(asked())
    assert was_cancelled
    assert outcome.body.status == Status.OK
    assert computations == 1


def test_a_change_while_it_is_computed_is_not_missed_by_who_asks_after_it(settings, processes, market, held_back):
    """Who asks after a bump does not join what began before it."""
    bars = raw_bars(1201)
    market.deliver("BTCUSDT", bars.head(1200))
    begun, go_on = held_back

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            first = asyncio.create_task(ask(one))
            await asyncio.to_thread(begun.wait, 10)
            market.deliver("BTCUSDT", bars.tail(1))
            with connect(settings) as client:
                Publisher(client, settings).bump_bars("BTCUSDT")
            second = asyncio.create_task(ask(one))
            go_on.set()
            return await first, await second, await ask(one), one.computations

    first, second, third, computations = asyncio.run(asked())
    newest = int(bars["close_time"].dt.epoch("us")[-1])
    assert second.watermark == third.watermark == newest
    assert computations == 2
    assert first.watermark <= newest


def test_who_waits_for_a_worker_that_died_computes_after_its_lease(settings, processes, market):
    market.walk("BTCUSDT", 1200)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            client = await asyncio.to_thread(async_connect, settings)
            target = Library(settings).prepare("BTCUSDT", RSI, "15m", 1)
            await client.set(f"{target.keys[0]}:by:0", "the dead", px=300)
            clock = asyncio.get_running_loop().time
            began = clock()
            outcome = await ask(one)
            await client.aclose()
            return outcome, clock() - began, one.computations

    outcome, took, computations = asyncio.run(asked())
    assert outcome.body.status == Status.OK
    assert computations == 1
    assert 0.2 < took < 3


def test_urgent_work_does_not_wait_for_floods_of_slow_work(settings, processes, market, monkeypatch):
    market.walk("BTCUSDT", 1200)
    market.walk("ETHUSDT", 1200)
    slow = _held_up(monkeypatch)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            frames = ("5m", "15m", "30m", "1h", "4h")
            flood = [asyncio.create_task(ask(one, timeframes=[each], priority=DataPriority.LOW)) for each in frames]
            urgent = await asyncio.wait_for(ask(one, ["ETHUSDT"], priority=DataPriority.CRITICAL), 10)
            waiting = sum(not each.done() for each in flood)
            slow.set()
            await asyncio.gather(*flood)
            return urgent, waiting

    urgent, waiting = asyncio.run(asked())
    assert urgent.body.status == Status.OK
    assert waiting == 5


def test_slow_work_becomes_urgent_when_somebody_urgent_waits_for_it(settings, processes, market, monkeypatch):
    for each in ("BTCUSDT", "ETHUSDT"):
        market.walk(each, 1200)
    slow = _held_up(monkeypatch)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            low = {"priority": DataPriority.LOW}
            first = asyncio.create_task(ask(one, ["BTCUSDT"], **low))
            queued = asyncio.create_task(ask(one, ["ETHUSDT"], **low))
            while not one._finder.workshop.threads._waiting:
                await asyncio.sleep(0.001)
            urgent = await asyncio.wait_for(ask(one, ["ETHUSDT"], priority=DataPriority.CRITICAL), 10)
            was_blocked = not first.done()
            slow.set()
            await asyncio.gather(first, queued)
            return urgent, was_blocked, one.computations

    urgent, was_blocked, computations = asyncio.run(asked())
    assert urgent.body.status == Status.OK
    assert was_blocked
    assert computations == 2


def test_a_flood_of_questions_about_nothing_is_computed_once_and_ends_when_there_is_something(
    settings, processes, market
):
    market.walk("BTCUSDT", 1200)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            flood = [await ask(one, ["NEWUSDT"]) for _ in range(50)]
            computations = one.computations
            market.walk("NEWUSDT", 1200)
            return flood, computations, await ask(one, ["NEWUSDT"])

    flood, computations, now = asyncio.run(asked())
    assert {each.body.problem.error for each in flood} == {"UnknownSymbol"}
    assert computations <= 3
    assert now.body.status == Status.OK


PROGRAM = """
    import asyncio, json, sys
    from mdplatform.settings import Settings
    from mdplatform.worker.evaluator import Evaluator
    from tests.worker.asking import ask
    from mdplatform.messaging.priority import DataPriority

    async def main():
        async with Evaluator(Settings.load(), worker=sys.argv[0]) as one:
            while (line := sys.stdin.readline().strip()) != "stop":
                asked = {"features": json.loads(line), "priority": DataPriority.LOW}
                outcomes = await asyncio.gather(*(ask(one, **asked) for _ in range(100)))
                versions = sorted({part.version for each in outcomes for part in each.body.parts})
                print(json.dumps([one.computations, one.answered_by_layer, versions]), flush=True)

    asyncio.run(main())
"""


def test_two_processes_on_one_home_compute_once_and_answer_the_same(settings, processes, market, python):
    market.walk("BTCUSDT", 1200)
    features = [f"EMA(timeperiod={period})" for period in range(5, 25)]
    with connect(settings):
        workers = [python(PROGRAM), python(PROGRAM)]
        told = []
        for asked in ([RSI], features):
            for each in workers:
                each.stdin.write(json.dumps(asked) + "\n")
                each.stdin.flush()
            told = [json.loads(each.stdout.readline()) for each in workers]
        for each in workers:
            each.stdin.write("stop\n")
            each.stdin.flush()
            assert each.wait(10) == 0
    assert sum(count for count, _, _ in told) == 1 + len(features)
    assert told[0][2] == told[1][2]
    assert sum(sum(layers.values()) for _, layers, _ in told) == 2 * 100 * (1 + len(features))


def test_redis_may_go_and_come_back_while_workers_answer(settings, processes, market):
    """Killed, and started again by who asks for it: no answer is lost, and none is old."""
    bars = raw_bars(1202)
    market.deliver("BTCUSDT", bars.head(1200))

    async def asked():
        newest = []
        async with Evaluator(settings, worker="a") as one:
            newest.append((await ask(one)).watermark)
            os.kill(processes.server(), signal.SIGKILL)
            market.deliver("BTCUSDT", bars[1200:1201])
            killed = await asyncio.gather(*(ask(one, features=[each]) for each in (RSI, "EMA", "ATR", RSI)))
            newest += [each.watermark for each in killed]
            market.deliver("BTCUSDT", bars[1201:1202])
            while (outcome := await ask(one)).body.parts[0].notes:
                await asyncio.sleep(0.05)
            newest.append(outcome.watermark)
            with connect(settings) as client:
                is_there = bool(client.exists(Library(settings).prepare("BTCUSDT", RSI, "15m", 1).keys[0]))
        return newest, is_there

    newest, is_there = asyncio.run(asyncio.wait_for(asked(), 30))
    closes = bars["close_time"].dt.epoch("us").to_list()
    assert newest == [closes[1199], *[closes[1200]] * 4, closes[1201]]
    assert is_there


async def both(settings, *, priority=DataPriority.LOW, **asked):
    """Ask 100 times the same of two workers; give the outcomes and how many computations it took."""
    async with Evaluator(settings, worker="a") as one, Evaluator(settings, worker="b") as other:
        tasks = [ask((one, other)[number % 2], priority=priority, **asked) for number in range(100)]
        outcomes = await asyncio.gather(*tasks)
        late = await ask(other if one.computations else one, priority=priority, **asked)
        return [*outcomes, late], one.computations + other.computations


@pytest.mark.parametrize("kind", ["range", "as_of", "long", "matrix", "series", "profile", "correlation"])
def test_equal_questions_of_every_kind_are_computed_once_by_two_workers(settings, processes, market, kind):
    bars = raw_bars(1200)
    if kind == "series":
        world.lake_in(settings.lake_dir)
    else:
        market.deliver("BTCUSDT", bars)
        market.walk("ETHUSDT", 1200)
    for path in settings.lake_dir.rglob("*"):  # what has just changed is kept for 20 ms only
        os.utime(path, (path.stat().st_mtime - 60,) * 2)
    start = int(bars["open_time"].dt.epoch("us")[300])
    asked = {
        "range": {"start": start, "end": start + 10**11},
        "as_of": {"as_of": start},
        "long": {"latest": 900},
        "matrix": {
            "symbols": ["BTCUSDT", "ETHUSDT"], "features": (), "latest": None,
            "type": RequestType.CORRELATION_MATRIX, "options": {"window": 100},
        },
        "series": {
            "symbols": (), "timeframes": (), "features": (), "latest": 5,
            "type": RequestType.MACRO_INDICATORS, "options": {"series": ["CPIAUCSL"]},
        },
        "profile": {"features": ["VOLUME_PROFILE"]},
        "correlation": {"features": ["CORRELATION(reference='ETHUSDT')"], "latest": 700},
    }[kind]  # fmt: skip
    outcomes, computations = asyncio.run(both(settings, **asked))
    assert computations == 1
    assert {each.body.status for each in outcomes} == {Status.OK}
    assert len({each.body.parts[0].version for each in outcomes}) == 1
    assert len({each.body.parts[0].data for each in outcomes}) == 1
    assert sum(len(each.made) for each in outcomes) == 1


def test_what_is_lent_is_not_given_after_a_change(settings, processes, market):
    bars = raw_bars(1201)
    market.deliver("BTCUSDT", bars.head(1200))

    async def asked():
        async with Evaluator(settings, worker="a") as one, Evaluator(settings, worker="b") as other:
            first = await ask(one, latest=1000)
            market.deliver("BTCUSDT", bars.tail(1))
            with connect(settings) as client:
                Publisher(client, settings).bump_bars("BTCUSDT")
            return first, await ask(other, latest=1000), one.computations + other.computations

    first, second, computations = asyncio.run(asked())
    assert second.watermark == int(bars["close_time"].dt.epoch("us")[-1]) > first.watermark
    assert computations == 2


def test_a_worker_lends_so_much_and_no_more(settings, processes, market):
    market.walk("BTCUSDT", 1200)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            await asyncio.gather(*(ask(one, latest=600 + number) for number in range(10)))
            client = await asyncio.to_thread(async_connect, settings)
            keys = [key async for key in client.scan_iter("mdp:{lent:*")]
            lives = [await client.pttl(key) for key in keys]
            await client.aclose()
            return lives

    lives = asyncio.run(asked())
    assert len(lives) == 10
    assert all(0 < each <= 5000 for each in lives), "they go by themselves"
    lending = Lending(most_bytes=25_000)
    part = Part(
        symbol="",
        timeframe="",
        feature="",
        source="computed",
        layer="lake",
        version="",
        available_at=0,
        rows=1,
        data=b"x" * 7_000,
    )
    answer = kept_part(part, Tally(1), Witness((1,), (), 0))
    assert [lending.lend(answer) is None for _ in range(5)] == [False, False, False, True, True]
