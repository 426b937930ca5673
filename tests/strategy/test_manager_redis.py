"""Over Redis: a server that is killed, a process that is gone, a worker that lives elsewhere; a thread of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading

import pytest

from mdplatform.errors import InvalidRequest, PlatformError, TransportUnavailable
from mdplatform.messaging import registry
from mdplatform.messaging.transport import Delivery
from mdplatform.requests.answer import PartKind
from mdplatform.strategy import Answer, Refresh, Status, StrategyDataManager, SyncStrategyDataManager

from .asking import RSI, SHARES, body, until


async def taken(worker, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += [each for each in await worker.take(SHARES, 0.5) if isinstance(each, Delivery)]
    return found


def test_a_server_that_is_killed_costs_no_answer_and_doubles_none(settings, processes):
    async def work() -> list[str]:
        got: list[str] = []
        async with StrategyDataManager(settings) as manager:
            worker = registry.answerer(settings, "test")
            wanted = [{"type": "technical_indicators", **RSI, "deadline": 60}] * 40
            ids = await manager.request_many(wanted, callback=lambda answer: got.append(answer.request_id))
            await until(lambda: all(each.is_sent for each in manager.open_requests))
            first = await taken(worker, 40)
            for each in first[:20]:
                await worker.settle(each.envelope.id, body(each.envelope.id), each)
            os.kill(processes.server(), signal.SIGKILL)
            more = await manager.request_many(wanted[:10], callback=lambda answer: got.append(answer.request_id))
            for each in first[20:]:
                await worker.settle(each.envelope.id, body(each.envelope.id), each)
            for each in await taken(worker, 10):
                await worker.settle(each.envelope.id, body(each.envelope.id), each)
            await until(lambda: len(got) >= 50, 20)
            answers = [await manager.result(id, 10) for id in (*ids, *more)]
            assert all(each.is_ok for each in answers)
            assert manager.open_requests == []
            await worker.close()
        return sorted(got)

    got = asyncio.run(work())
    assert len(got) == len(set(got)) == 50


def test_the_result_of_another_process_can_be_had_here(settings, processes, python):
    asking = python(
        """
        import asyncio
        from mdplatform.strategy import StrategyDataManager

        async def ask():
            async with StrategyDataManager() as manager:
                ids = await manager.request_many([
                    {"type": "technical_indicators", "strategy_id": "gone", "symbols": "BTCUSDT", "indicators": "RSI",
                     "timeframes": "15m", "deadline": 60, "refresh": refresh}
                    for refresh in ("once", "once", "on_close")
                ])
                print(*ids, flush=True)

        asyncio.run(ask())
        input()
        """
    )
    first, second, standing = asking.stdout.readline().split()

    async def work() -> tuple[Answer, Answer, list[int]]:
        worker = registry.answerer(settings, "test")
        await taken(worker, 3)
        await worker.settle(first, body(first))
        async with StrategyDataManager(settings) as manager:
            before = await manager.result(first, 5)  # it was answered before anybody here asked
            waiting = asyncio.create_task(manager.result(second, 5))
            numbers: list[int] = []

            async def read() -> None:
                async for answer in manager.answers(standing):
                    numbers.append(answer.number)

            reading = asyncio.create_task(read())
            await until(lambda: len(manager.open_requests) == 2)
            assert {each.strategy_id for each in manager.open_requests} == {"gone"}
            await worker.settle(second, body(second))
            await worker.tell(standing, body(standing, 7, final=False), number=7)
            await worker.settle(standing, body(standing, parts=()))
            await reading
            await worker.close()
            return before, await waiting, numbers

    before, after, numbers = asyncio.run(work())
    assert before.is_ok
    assert after.is_ok
    assert numbers == [7]


def test_a_strategy_that_starts_again_under_its_address_gets_what_came_meanwhile(settings, processes):
    async def work() -> list[Answer]:
        worker = registry.answerer(settings, "test")
        async with StrategyDataManager(settings, address="desk-1") as manager:
            await manager.request_technical_indicators(**RSI, request_id="mine", deadline=60)
        await taken(worker, 1)
        await worker.settle("mine", body("mine"))
        got: list[Answer] = []
        async with StrategyDataManager(settings, address="desk-1") as manager:
            await manager.request_technical_indicators(**RSI, request_id="mine", deadline=60, callback=got.append)
            await until(lambda: got)
            assert not await worker.take(SHARES, 0.0)
        await worker.close()
        return got

    assert [each.request_id for each in asyncio.run(work())] == ["mine"]


def test_the_synchronous_manager_works_inside_a_running_loop(market, settings, processes):
    market.walk("BTCUSDT", 1_000)

    async def notebook() -> None:
        with SyncStrategyDataManager(settings, transport="memory") as manager:
            threads: list[str] = []
            id = manager.request_technical_indicators(
                **{**RSI, "indicators": ["RSI", "MACD"]}, latest=50,
                callback=lambda answer: threads.append(threading.current_thread().name),
            )  # fmt: skip
            answer = manager.result(id, 20)
            assert answer.to_pandas().shape == (50, 5)
            assert manager.open_requests == []
            with pytest.raises(PlatformError, match=r"indicators\[0\]"):
                manager.request_technical_indicators(**{**RSI, "indicators": ["RSY"]})
            standing = manager.request_technical_indicators(**RSI, refresh=Refresh.ON_CLOSE)
            answers = manager.answers(standing)
            assert next(answers).get("BTCUSDT").rows[0]["settled"]
            assert [each.is_standing for each in manager.open_requests] == [True]
            assert manager.cancel(standing)
            assert list(answers) == []
            many = manager.request_many([{"type": "technical_indicators", **RSI}] * 3)
            assert [manager.result(each, 5).status for each in many] == [Status.OK] * 3
            await until(lambda: threads)
            assert threads == ["strategy-data-manager"]
        with pytest.raises(TransportUnavailable, match="closed"):
            manager.request_technical_indicators(**RSI)
        assert manager.close() == []

    asyncio.run(notebook())
    assert [each.name for each in threading.enumerate() if each.name == "strategy-data-manager"] == []


def test_a_callback_that_waits_for_its_own_manager_is_told_so(market, settings, processes, caplog):
    market.walk("BTCUSDT", 300)
    with SyncStrategyDataManager(settings, transport="memory") as manager:
        refused: list[BaseException] = []
        called = threading.Event()

        def callback(answer: Answer) -> None:
            try:
                manager.result(answer.request_id)
            except InvalidRequest as error:
                refused.append(error)
            called.set()

        manager.request_technical_indicators(**RSI, callback=callback)
        assert called.wait(20)
    assert "cannot wait for its own manager" in str(refused[0])


def test_answers_are_written_as_plain_values_and_tables(market, settings, processes):
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        market.walk(symbol, 600, seed)
    with SyncStrategyDataManager(settings, transport="memory") as manager:
        id = manager.request_technical_indicators(
            "m", ["BTCUSDT", "ETHUSDT"], ["RSI", "MACD", "ATR@1h"], ["15m", "1h"], latest=20
        )
        answer = manager.result(id, 20)
        matrix = manager.result(
            manager.request_correlation_matrix("m", ["BTCUSDT", "ETHUSDT"], ["15m", "1h"], window=100), 20
        )
    told = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert told["status"] == "ok"
    assert told["results"][0]["rows"][-1]["rsi"] == answer.parts[0].rows[-1]["rsi"] == answer.parts[0].values[-1]
    wide = answer.to_pandas()
    assert wide.index.names == ["symbol", "timeframe", "open_time"]
    assert len(wide) == 80
    assert wide.loc[("ETHUSDT", "1h")].index[-1] == answer.get("ETHUSDT", "RSI", "1h").open_time
    long = answer.to_arrow()
    assert long.num_rows == 4 * 20 * 5
    for result in answer:
        name, column = list(result.outputs.items())[-1]
        cells = wide.loc[(result.symbol, result.timeframe), column].to_numpy()
        values = result.values if result.values.ndim == 1 else result.values[:, -1]
        assert cells == pytest.approx(values, nan_ok=True)
        assert result.to_pandas()[name].to_numpy() == pytest.approx(values, nan_ok=True)
    with pytest.raises(KeyError, match="2 results for BTCUSDT, RSI; there are: BTCUSDT 15m RSI"):
        answer.get("BTCUSDT", "RSI")

    first = matrix.parts[0]
    assert first.kind is PartKind.CORRELATION
    assert first.symbols == ("BTCUSDT", "ETHUSDT")
    assert first.matrix[0, 1] == first.matrix[1, 0] == pytest.approx(first.to_pandas().loc["BTCUSDT", "ETHUSDT"])
    assert first.observations.tolist() == [[100, 100], [100, 100]]
    assert first.estimator == "pearson, pairwise"
    assert first.is_psd is True
    assert matrix.to_pandas().index.names[0] == "timeframe"
    assert matrix.to_arrow().num_rows == 8
    assert json.loads(json.dumps(matrix.to_dict(), allow_nan=False))["results"][0]["matrix"] == first.matrix.tolist()
    with pytest.raises(AttributeError, match="no correlation matrix"):
        _ = answer.parts[0].matrix
