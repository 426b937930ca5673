"""Strategies ask and are answered: once, in order, whatever callbacks, cancellations and servers do."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

import pytest

from mdplatform.errors import (
    InvalidRequest,
    InvalidSetting,
    PlatformError,
    RequestRejected,
    TransportUnavailable,
    UnknownRequest,
)
from mdplatform.messaging.transport import Reply
from mdplatform.requests import making, wire
from mdplatform.requests.request import RequestType
from mdplatform.strategy import Answer, DataPriority, Status, StrategyDataManager, SyncStrategyDataManager, kept

from .asking import RSI, bench, body, until


class Strategy:
    """The strategy of the task, which keeps what it is given."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def handle_indicator_data(self, answer: Answer) -> None:
        self.answers.append(answer)

    async def ask(self, strategy_data_manager: StrategyDataManager) -> tuple[str, str]:
        request_id = await strategy_data_manager.request_technical_indicators(
            strategy_id="momentum_strategy_001", strategy_name="Advanced Momentum Strategy",
            symbols=["BTCUSDT", "ETHUSDT"],
            indicators=[{"name": "RSI", "parameters": {"period": 14}},
                        {"name": "MACD", "parameters": {"fast": 12, "slow": 26, "signal": 9}}],
            timeframes=["15m", "1h"], priority=DataPriority.HIGH, callback=self.handle_indicator_data)  # fmt: skip
        other_id = await strategy_data_manager.request_custom_composite_indicator(
            strategy_id="advanced_momentum", symbols=["BTCUSDT"],
            formula="(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
            input_indicators=[{"name": "RSI", "parameters": {"period": 14}},
                              {"name": "MACD", "parameters": {"fast": 12, "slow": 26}},
                              {"name": "PRICE_STD", "parameters": {"period": 20}}],
            timeframes=["15m", "1h"])  # fmt: skip
        return request_id, other_id


def test_the_calls_of_a_strategy_are_answered_by_a_worker_in_the_process(market, settings, processes):
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        market.walk(symbol, 1_500, seed)

    async def work() -> tuple[Strategy, Answer, Answer, Answer]:
        strategy = Strategy()
        async with StrategyDataManager(settings, transport="memory") as manager:
            request_id, other_id = await strategy.ask(manager)
            composite = await manager.result(other_id, timeout=20)
            await until(lambda: strategy.answers)
            matrix = await manager.request_correlation_matrix("m", ["BTCUSDT", "ETHUSDT"], ["1h"])
            series = await manager.request_macro_indicators("m", "CPIAUCSL")
            assert strategy.answers[0].request_id == request_id
            return strategy, composite, await manager.result(matrix, 20), await manager.result(series, 20)

    strategy, composite, matrix, series = asyncio.run(work())
    (answer,) = strategy.answers
    assert answer.is_ok
    assert len(answer) == 8
    assert answer.get("ETHUSDT", "MACD", "1h").values.shape == (1, 3)
    assert answer.to_pandas().loc[("BTCUSDT", "15m"), "RSI(timeperiod=14)"].notna().all()
    assert answer.latency_ms >= answer.timings_ms["queue"]
    assert composite.is_ok
    assert composite.get("BTCUSDT", timeframe="15m").status == ["settled"]
    assert matrix.parts[0].matrix.shape == (2, 2)
    assert series.status is Status.FAILED
    with pytest.raises(PlatformError, match="mdplatform ingest fred:CPIAUCSL"):
        series.raise_for_status()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_callback_gets_each_answer_once_and_in_order(settings, is_async):
    async def work() -> list[tuple[int, bool]]:
        got: list[tuple[int, bool]] = []

        async def slowly(answer: Answer) -> None:
            await asyncio.sleep(0.01 if answer.number == 1 else 0)  # the first one is the slowest
            got.append((answer.number, answer.final))

        def quickly(answer: Answer) -> None:
            got.append((answer.number, answer.final))

        async with bench(settings) as side:
            callback = slowly if is_async else quickly
            id = await side.manager.request_technical_indicators(**RSI, refresh="on_close", callback=callback)
            await side.taken()
            for number in (1, 2, 3):
                await side.tell(id, number)
                repetition = Reply(id=id, final=False, body=body(id, number, final=False))
                side.transport.reply(side.transport.states[id], repetition)  # as after a reconnection
            await side.answer(id, parts=())
            side.transport.reply(side.transport.states[id], Reply(id=id, final=True, body=body(id)))
            await side.manager.result(id, 5)
            await until(lambda: got and got[-1][1])
            await asyncio.sleep(0)
        return got

    assert asyncio.run(work()) == [(1, False), (2, False), (3, False), (0, True)]


def test_a_callback_that_fails_is_logged_and_stops_nothing(settings, caplog):
    async def work() -> list[str]:
        got: list[str] = []

        def broken(answer: Answer) -> None:
            raise ValueError("broken strategy")

        async def broken_later(answer: Answer) -> None:
            await asyncio.sleep(0)
            raise ValueError("broken later")

        async with bench(settings) as side:
            for callback in (broken, broken_later, lambda answer: got.append(answer.request_id)):
                id = await side.manager.request_technical_indicators(**RSI, callback=callback)
                await side.taken()
                await side.answer(id)
            assert (await side.manager.result(id, 5)).is_ok
            await until(lambda: got)
        return got

    assert len(asyncio.run(work())) == 1
    assert "broken strategy" in caplog.text
    assert "broken later" in caplog.text


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit])
def test_a_callback_that_would_end_the_thread_of_its_manager_is_logged(market, settings, caplog, failure):
    market.walk("BTCUSDT", 300)

    def end(answer: Answer) -> None:
        raise failure

    with SyncStrategyDataManager(settings, transport="memory") as manager:
        first = manager.request_technical_indicators(**RSI, callback=end)
        assert manager.result(first, timeout=20).is_ok
        assert manager.result(manager.request_technical_indicators(**RSI), timeout=20).is_ok
    assert f"The callback of request {first} failed" in caplog.text


def test_a_slow_callback_is_named_and_others_run_between(settings, caplog):
    async def work() -> list[str]:
        events: list[str] = []

        def slow(answer: Answer) -> None:
            events.append("callback")
            time.sleep(0.12)

        async def tick() -> None:
            while True:
                if not events or events[-1] != "tick":
                    events.append("tick")
                await asyncio.sleep(0)

        async with bench(settings) as side:
            ids = await side.manager.request_many([{"type": "technical_indicators", **RSI}] * 3, callback=slow)
            await side.taken(3)
            ticking = asyncio.create_task(tick())
            for id in ids:
                await side.answer(id)
            await until(lambda: events.count("callback") == 3)
            ticking.cancel()
        return events[events.index("callback") :]

    events = asyncio.run(work())
    assert events == ["callback", "tick", "callback", "tick", "callback", "tick"][: len(events)]
    assert len(events) >= 5
    assert "held up the event loop for 12" in caplog.text


def test_a_batch_goes_out_in_few_round_trips_and_wholly_or_not_at_all(settings):
    class Counting:
        def __init__(self, asker):
            self.asker, self.sizes = asker, []

        def __getattr__(self, name):
            return getattr(self.asker, name)

        async def send(self, envelopes):
            self.sizes.append(len(envelopes))
            return await self.asker.send(envelopes)

    async def work() -> None:
        async with bench(settings, Counting) as side:
            wanted = [{"type": "TECHNICAL_INDICATORS", **RSI, "request_id": f"r{each}"} for each in range(500)]
            with pytest.raises(PlatformError) as refused:
                await side.manager.request_many([*wanted, {"type": "TECHNICAL_INDICATORS", **RSI, "timeframes": "1H"}])
            assert refused.value.field == "[500].timeframes[0]"
            with pytest.raises(InvalidRequest, match=r"\[0\]"):
                await side.manager.request_many([5])
            assert side.manager.open_requests == []
            ids = await side.manager.request_many([*wanted, making.make("technical_indicators", **RSI)])
            assert ids[:2] == ["r0", "r1"]
            taken = await side.taken(501)
            assert sum(side.asker.sizes) == 501
            assert len(side.asker.sizes) <= 8
            for each in taken:
                await side.answer(each.envelope.id)
            answers = await asyncio.gather(*(side.manager.result(id, 5) for id in ids))
            assert [each.request_id for each in answers] == ids

    asyncio.run(work())


def test_an_id_of_the_callers_is_asked_and_answered_once(settings):
    async def work() -> None:
        got: list[Answer] = []
        async with bench(settings) as side:
            for _ in range(3):
                assert (
                    await side.manager.request_technical_indicators(**RSI, request_id="one", callback=got.append)
                    == "one"
                )
            with pytest.raises(InvalidRequest, match="The id of another request") as refused:
                await side.manager.request_technical_indicators(**{**RSI, "timeframes": "1h"}, request_id="one")
            assert refused.value.field == "request_id"
            (delivery,) = await side.taken()
            await side.answer("one")
            await until(lambda: got)
            await side.manager.request_technical_indicators(**RSI, request_id="one", callback=got.append)
            assert (await side.manager.result("one", 5)).is_ok
            # what was awaited is let go here; the server still knows it
            await side.manager.request_technical_indicators(**RSI, request_id="one", callback=got.append)
            await until(lambda: len(got) == 2)
            assert not await side.worker.take(dict.fromkeys(DataPriority, 9), 0.0)
            assert delivery.attempt == 1

    asyncio.run(work())


def test_another_request_under_an_id_that_is_known_is_refused_here_and_by_the_server(settings):
    async def work() -> None:
        async with bench(settings) as side, StrategyDataManager(settings, asker=side.transport.asker()) as other:
            others = [{"timeframes": "1h"}, {"strategy_id": "another"}, {"latest": 5}]
            await side.manager.request_technical_indicators(**RSI, request_id="one", deadline=60)
            await side.taken()
            for each in others:
                await other.request_technical_indicators(**{**RSI, **each}, request_id="one")
                answer = await other.result("one", 5)
                assert (answer.status, answer.problem.field, answer.problem.value) == ("rejected", "request_id", "one")
            await side.answer("one")
            await until(lambda: not side.manager.open_requests)
            for each in others:
                with pytest.raises(InvalidRequest, match="The id of another request"):
                    await side.manager.request_technical_indicators(**{**RSI, **each}, request_id="one")
            await other.request_technical_indicators(**RSI, request_id="one", deadline=20)
            assert (await other.result("one", 5)).is_ok
            assert (await side.manager.result("one", 5)).is_ok

    asyncio.run(work())


def test_what_is_cancelled_has_an_end_and_one_only(settings):
    async def work() -> None:
        got: list[Answer] = []
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI, callback=got.append)
            await side.taken()
            assert await side.manager.cancel(id) is True
            assert await side.answer(id) is False
            assert await side.manager.cancel(id) is False
            await until(lambda: got)
            assert (got[0].status, got[0].problem.error) == (Status.FAILED, "Cancelled")

            late = await side.manager.request_technical_indicators(**RSI)
            await side.taken()
            await side.answer(late)
            assert await side.manager.cancel(late) is False
            assert (await side.manager.result(late, 5)).is_ok

            standing = await side.manager.request_technical_indicators(**RSI, refresh="on_close")
            assert await side.manager.cancel(standing) is True
            assert (await side.manager.result(standing, 5)).is_ok
            with pytest.raises(UnknownRequest):
                await side.manager.cancel("nobody-knows-it")
            other = StrategyDataManager(settings, asker=side.transport.asker())
            third = await side.manager.request_technical_indicators(**RSI)
            await side.taken()
            assert await other.cancel(third) is True
            assert (await side.manager.result(third, 5)).problem.error == "Cancelled"
            macro = await side.manager.request_macro_indicators("test", series=["CPIAUCSL"])
            await side.taken()
            assert await other.cancel(macro) is True
            assert (await side.manager.result(macro, 5)).body.type is RequestType.MACRO_INDICATORS
            await other.close()

    asyncio.run(work())


def test_standing_answers_are_given_as_they_come_until_the_end(settings):
    async def work() -> tuple[list[int], list[int]]:
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI, refresh="on_close")
            await side.taken()
            await side.tell(id, 10)
            await until(lambda: side.manager.open_requests[0].answers == 1)
            first, second = [], []

            async def read(into: list[int]) -> None:
                async for answer in side.manager.answers(id):
                    into.append(answer.number)

            async with asyncio.TaskGroup() as readers:
                readers.create_task(read(first))
                readers.create_task(read(second))
                await asyncio.sleep(0)
                await side.tell(id, 11)
                await side.tell(id, 12)
                assert not await side.tell(id, 12)
                await side.answer(id, parts=())
            assert side.manager.open_requests == []
            with pytest.raises(UnknownRequest):
                async for _ in side.manager.answers("nobody-knows-it"):
                    pass
        return first, second

    assert asyncio.run(work()) == ([10, 11, 12], [10, 11, 12])


def test_a_request_that_no_worker_takes_has_its_answer_soon_after_the_deadline(settings):
    async def work() -> None:
        got: list[Answer] = []
        async with bench(settings) as side:
            began = time.perf_counter()
            requests = [{"type": "technical_indicators", **RSI, "deadline": 0.1}] * 200
            ids = await side.manager.request_many(requests, callback=got.append)
            standing = await side.manager.request_technical_indicators(**RSI, deadline=0.1, refresh="on_close")
            answers = await asyncio.gather(*(side.manager.result(id, 5) for id in ids))
            took = time.perf_counter() - began
            assert {each.problem.error for each in answers} == {"DeadlinePassed"}
            assert "mdplatform worker" in answers[0].problem.remedy
            assert 0.1 < took < 2.0
            await until(lambda: len(got) == 200)
            assert (await side.manager.result(standing, 5)).is_ok
            assert await side.answer(ids[0]) is False  # a worker that comes late has lost

    asyncio.run(work())


def test_the_answer_is_given_even_if_the_server_cannot_be_reached(settings):
    async def work() -> Answer:
        away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        async with StrategyDataManager(away) as manager:
            id = await manager.request_technical_indicators(**RSI, deadline=0.1)
            assert [each.is_sent for each in manager.open_requests] == [False]
            return await manager.result(id, 10)

    answer = asyncio.run(work())
    assert answer.status is Status.FAILED
    assert "does not answer" in answer.problem.cause


def test_over_capacity_the_answer_says_when_to_try_again(settings):
    async def work() -> Answer:
        got: list[Answer] = []
        async with bench(settings.model_copy(update={"request_capacity": 1})) as side:
            await side.manager.request_technical_indicators(**RSI)
            id = await side.manager.request_technical_indicators(**RSI, priority="LOW", callback=got.append)
            await until(lambda: got)
            assert (await side.manager.result(id)).status is Status.REJECTED
            return got[0]

    answer = asyncio.run(work())
    assert answer.problem.retry_after_seconds > 0
    with pytest.raises(RequestRejected) as rejected:
        answer.raise_for_status()
    assert rejected.value.retry_after_seconds == answer.problem.retry_after_seconds


def test_the_result_can_be_had_by_another_manager(settings):
    async def work() -> None:
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI)
            await side.taken()
            async with StrategyDataManager(settings, asker=side.transport.asker()) as other:
                waiting = asyncio.create_task(other.result(id, 5))
                got: list[Answer] = []
                await other.adopt(id, got.append)
                await side.answer(id)
                assert (await waiting).is_ok
                await until(lambda: got)
                assert (await side.manager.result(id, 5)).is_ok
                later = StrategyDataManager(settings, asker=side.transport.asker())
                assert (await later.result(id, 5)).is_ok  # long after
                await later.adopt(id, got.append)
                await until(lambda: len(got) == 2)
                await later.close()
                with pytest.raises(UnknownRequest, match="nobody-knows-it"):
                    await other.result("nobody-knows-it")

    asyncio.run(work())


def test_a_server_that_has_forgotten_a_request_gets_it_again(settings):
    async def work() -> Answer:
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI)
            await side.taken()
            side.transport.states.clear()
            side.transport.open.clear()
            side.manager._letters.open[0].look_again_at = 0.0  # as if it had been silent for long
            (delivery,) = await side.taken()
            assert wire.decode_request(delivery.envelope.body).request_id == id
            await side.answer(id)
            return await side.manager.result(id, 5)

    assert asyncio.run(work()).is_ok


def test_an_answer_that_the_server_lost_on_the_way_is_asked_for(settings):
    async def work() -> Answer:
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI)
            await side.taken()
            side.transport.states[id].addresses.clear()
            await side.answer(id)
            side.manager._letters.open[0].look_again_at = 0.0
            return await side.manager.result(id, 5)

    assert asyncio.run(work()).is_ok


def test_closing_waits_for_nothing_and_tells_what_is_open(settings, caplog):
    caplog.set_level(logging.INFO)

    async def work() -> None:
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI, deadline=30)
            await side.taken()
            waiting = asyncio.create_task(side.manager.result(id))
            reading = asyncio.create_task(anext(side.manager.answers(id)))
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            (left,) = await side.manager.close()
            assert time.perf_counter() - began < 0.5
            assert (left.request_id, left.strategy_id, left.is_sent) == (id, "momentum", True)
            assert left.deadline > datetime.now(UTC)
            with pytest.raises(TransportUnavailable, match="closed"):
                await waiting
            with pytest.raises(StopAsyncIteration):
                await reading
            with pytest.raises(TransportUnavailable, match="closed"):
                await side.manager.request_technical_indicators(**RSI)
            assert await side.manager.close() == []
            await side.answer(id)
            async with StrategyDataManager(settings, asker=side.transport.asker()) as other:
                assert (await other.result(id, 5)).is_ok

    asyncio.run(work())
    assert "Closed while 1 requests are open" in caplog.text


def test_what_was_asked_just_before_closing_is_sent(settings):
    async def work() -> None:
        async with bench(settings) as side:
            await side.manager.request_technical_indicators(**RSI)
            await side.manager.close()
            await side.taken()

    asyncio.run(work())


def test_progress_is_told_on_the_way(settings):
    async def work() -> list[str]:
        told: list[str] = []
        async with bench(settings, on_progress=lambda progress: told.append(progress.stage)) as side:
            id = await side.manager.request_technical_indicators(**RSI)
            await side.taken()
            await side.progress(id, "waiting_for_run")
            await until(lambda: told)
            assert side.manager.open_requests[0].progress.stage == "waiting_for_run"
            await side.answer(id)
            assert (await side.manager.result(id, 5)).is_ok
        return told

    assert asyncio.run(work()) == ["waiting_for_run"]


def test_answers_that_nobody_awaits_are_bounded(settings, monkeypatch):
    monkeypatch.setattr(kept, "MOST_KEPT", 10)

    async def work() -> None:
        async with bench(settings) as side:
            ids = await side.manager.request_many([{"type": "technical_indicators", **RSI}] * 50)
            for each in await side.taken(50):
                await side.answer(each.envelope.id)
            await until(lambda: not side.manager.open_requests)
            assert len(side.manager._letters._kept._answers) == 10
            assert (await side.manager.result(ids[0], 5)).is_ok  # the server keeps them longer

    asyncio.run(work())


def test_an_answer_that_cannot_be_read_fails_its_request_alone(settings):
    async def work() -> None:
        async with bench(settings) as side:
            first, second = await side.manager.request_many([{"type": "technical_indicators", **RSI}] * 2)
            await side.taken(2)
            await side.worker.settle(first, b"A\xc1 no answer")
            await side.answer(second)
            assert (await side.manager.result(first, 5)).problem.error == "AnswerLost"
            assert (await side.manager.result(second, 5)).is_ok

    asyncio.run(work())


@pytest.mark.parametrize("given", [None, 5, "RSI", {"type": "TECHNICAL_INDICATORS"}])
def test_what_is_no_list_of_requests_is_refused(settings, given):
    async def test():
        async with bench(settings) as side:
            with pytest.raises(InvalidRequest, match="Not a list of requests"):
                await side.manager.request_many(given)

    asyncio.run(test())


def test_what_is_no_number_of_seconds_is_refused(settings):
    async def test():
        async with bench(settings) as side:
            for timeout in ("x", True, [1]):
                with pytest.raises(InvalidRequest, match="Not a number of seconds") as refused:
                    await side.manager.result("an id", timeout=timeout)
                assert refused.value.field == "timeout"

    asyncio.run(test())


def test_a_timeout_ends_the_waiting_and_not_the_request(settings):
    async def work() -> None:
        async with bench(settings) as side:
            id = await side.manager.request_technical_indicators(**RSI)
            with pytest.raises(TimeoutError):
                await side.manager.result(id, 0.01)
            await side.taken()
            await side.answer(id)
            assert (await side.manager.result(id, 5)).is_ok

    asyncio.run(work())


def test_a_manager_without_with_opens_itself_and_is_of_one_loop(settings):
    manager = StrategyDataManager(settings, transport="memory")

    async def ask() -> None:
        with pytest.raises(PlatformError, match=r"indicators\[0\]"):
            await manager.request_technical_indicators(**{**RSI, "indicators": ["RSY"]})
        with pytest.raises(InvalidRequest, match="callback"):
            await manager.request_technical_indicators(**RSI, callback=5)

    async def ask_elsewhere() -> None:
        with pytest.raises(InvalidSetting, match="another event loop"):
            await manager.request_technical_indicators(**RSI)

    async def both() -> None:
        await ask()
        await asyncio.to_thread(asyncio.run, ask_elsewhere())
        assert await manager.close() == []

    asyncio.run(both())
    with pytest.raises(InvalidSetting, match="Allowed: redis, rabbitmq, memory"):
        StrategyDataManager(settings, transport="pigeon")
