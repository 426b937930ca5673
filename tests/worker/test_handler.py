"""A worker brings each request to one end, whatever it is asked and whatever goes wrong beside it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from mdplatform.errors import TransportRefused
from mdplatform.messaging.memory.transport import MemoryAnswerer, MemoryTransport
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Delivery
from mdplatform.requests import wire
from mdplatform.requests.answer import AnswerBody, Result, Status
from mdplatform.requests.ids import new_id
from mdplatform.requests.request import DataRequest
from mdplatform.serving.reader import Reader
from mdplatform.settings import Settings
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.handler import StrategyDataRequestHandler
from tests.conftest import FIRST_OPEN, Market, raw_bars

from .handling import Beside, Inbox, envelope_of, eventually, raw_envelope, rsi_of


class Stage:
    """A transport, an asker's inbox, and the handler between them."""

    def __init__(self, transport: MemoryTransport, handler: StrategyDataRequestHandler) -> None:
        self.transport = transport
        self.handler = handler
        self.inbox = Inbox(transport.asker())


@asynccontextmanager
async def working(
    settings: Settings,
    evaluator: Callable[[], Evaluator] | None = None,
    answerer: Callable[[MemoryTransport], MemoryAnswerer] = MemoryTransport.answerer,
    stop_seconds: float = 5.0,
) -> AsyncIterator[Stage]:
    transport = MemoryTransport(settings)
    made = evaluator() if evaluator else Evaluator(settings, worker="test")
    handler = StrategyDataRequestHandler(settings, answerer(transport), made, worker="test", stop_seconds=stop_seconds)
    async with made, handler:
        yield Stage(transport, handler)


async def at_rest(stage: Stage) -> dict[str, int]:
    """The counters once nothing is in hand: an answer is there a little before its worker has noted that."""
    await eventually(lambda: not stage.handler.told()["in_hand"])
    return stage.handler.told()


def has(answers: list[AnswerBody], count: int) -> bool:
    return len(answers) == count


@pytest.fixture
def without_redis(settings: Settings, market: Market) -> Settings:
    """A lake with bars, and no Redis: values come from the lake, and no server has to be started."""
    market.walk("BTCUSDT", 300)
    return settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock", "redis_retry_seconds": 60})


def test_a_request_is_answered_with_the_values_that_a_reader_gives(without_redis: Settings) -> None:
    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(rsi_of(latest=3)), await at_rest(stage)

    (answer,), told = asyncio.run(asked())
    with Reader(without_redis) as reader:
        expected = reader.latest("BTCUSDT", "RSI(14)", "15m", 3)
    assert answer.status is Status.OK
    assert answer.worker == "test"
    assert {"queue"} <= set(answer.timings_ms)
    assert Result(answer.parts[0]).values.tolist() == pytest.approx(expected.values.tolist(), rel=1e-9)
    assert told["answered_ok"] == 1
    assert told["in_hand"] == 0


def test_many_requests_of_all_classes_are_each_answered_once(without_redis: Settings) -> None:
    requests = [rsi_of(period=5 + n % 7, priority=list(DataPriority)[n % 4]) for n in range(300)]

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(*requests)

    answers = asyncio.run(asked())
    assert {each.status for each in answers} == {Status.OK}


def test_what_the_check_refuses_is_rejected_by_field_value_and_what_is_allowed(without_redis: Settings) -> None:
    wrong = msgspec.structs.replace(rsi_of(), timeframes=("7m",))

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(wrong)

    (answer,) = asyncio.run(asked())
    assert answer.status is Status.REJECTED
    assert answer.problem.field.startswith("timeframes")
    assert answer.problem.value == "7m"
    assert "15m" in answer.problem.remedy


def test_a_field_of_another_type_is_named(without_redis: Settings) -> None:
    fields = {**msgspec.msgpack.decode(wire.encode_request(rsi_of())), "latest": "three"}
    envelope = raw_envelope(new_id(), msgspec.msgpack.encode(fields))

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(envelope)

    (answer,) = asyncio.run(asked())
    assert (answer.status, answer.problem.field) == (Status.REJECTED, "latest")
    assert "Expected `int | null`, got `str`" in answer.problem.cause


def test_another_id_in_the_body_than_on_the_envelope_is_rejected(without_redis: Settings) -> None:
    envelope = envelope_of(rsi_of(), id=new_id())

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(envelope)

    (answer,) = asyncio.run(asked())
    assert (answer.status, answer.problem.field) == (Status.REJECTED, "request_id")


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("priority", {"priority": DataPriority.CRITICAL}),
        ("deadline", {"deadline": 2**62}),
        ("refresh", {"standing": True}),
    ],
)
def test_an_envelope_that_says_other_than_its_request_is_rejected(without_redis: Settings, field, other) -> None:
    envelope = msgspec.structs.replace(envelope_of(rsi_of()), **other)

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(envelope)

    (answer,) = asyncio.run(asked())
    assert (answer.status, answer.problem.field) == (Status.REJECTED, field)


def test_bytes_that_are_no_request_are_buried_once_and_answered(without_redis: Settings) -> None:
    poison = raw_envelope(new_id(), b"\xc1 no message pack")
    other = raw_envelope(new_id(), msgspec.msgpack.encode({"request_id": "x", "surprise": 1}))

    async def asked():
        async with working(without_redis) as stage:
            answers = await stage.inbox.ask(poison, other, rsi_of())
            return answers, list(stage.transport.dead), stage.handler.counts

    (first, second, good), dead, counts = asyncio.run(asked())
    assert (first.status, second.status, good.status) == (Status.REJECTED, Status.REJECTED, Status.OK)
    assert sorted(id for id, _, _ in dead) == sorted([poison.id, other.id])
    assert all("no request" in reason for _, reason, _ in dead)
    assert counts.buried == 2


@with_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_come_are_answered_and_the_worker_goes_on(without_redis: Settings, data: st.DataObject) -> None:
    good = wire.encode_request(rsi_of())
    flipped = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)).map(
        lambda change: good[: change[0]] + bytes([change[1]]) + good[change[0] + 1 :]
    )
    fields = st.dictionaries(
        st.sampled_from(DataRequest.__struct_fields__),
        st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3),
    ).map(lambda changed: msgspec.msgpack.encode({**msgspec.msgpack.decode(good), **changed}))
    bodies = data.draw(st.lists(st.binary(max_size=40) | flipped | fields, min_size=1, max_size=8))
    envelopes = [raw_envelope(new_id(), each) for each in bodies]

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(*envelopes), await stage.inbox.ask(rsi_of()), stage.handler.counts

    answers, (after,), counts = asyncio.run(asked())
    assert after.status is Status.OK
    assert all(each.problem is not None for each in answers if each.status is Status.REJECTED)
    assert counts.failures == 0


def test_an_error_nobody_foresaw_fails_its_request_alone_and_is_logged(
    without_redis: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = rsi_of(), rsi_of()

    async def break_down(request: DataRequest) -> None:
        if request.request_id == bad.request_id:
            raise ZeroDivisionError("a mistake of ours")

    async def asked():
        async with working(without_redis, lambda: Beside(without_redis, break_down)) as stage:
            return await stage.inbox.ask(bad, good), stage.handler.counts

    with caplog.at_level(logging.INFO, "mdplatform.worker"):
        (failed, fine), counts = asyncio.run(asked())
    assert (failed.status, fine.status) == (Status.FAILED, Status.OK)
    assert "a mistake of ours" in failed.problem.cause
    assert counts.failures == 1
    lines = [json.loads(each.getMessage()) for each in caplog.records]
    (line,) = [each for each in lines if each["event"] == "request_failed"]
    assert line["request_id"] == bad.request_id
    assert "break_down" in line["traceback"]


def test_what_comes_after_its_deadline_is_not_evaluated(without_redis: Settings) -> None:
    late, in_time = rsi_of(), rsi_of()
    evaluators = []

    async def nothing(_: DataRequest) -> None:
        pass

    def watched() -> Evaluator:
        evaluators.append(Beside(without_redis, nothing))
        return evaluators[0]

    async def asked():
        async with working(without_redis, watched) as stage:
            return await stage.inbox.ask(envelope_of(late, deadline=time.time_ns() // 1000 - 1), in_time)

    failed, fine = asyncio.run(asked())
    assert (failed.status, failed.problem.error) == (Status.FAILED, "DeadlinePassed")
    assert fine.status is Status.OK
    assert evaluators[0].began == [in_time.request_id]


def test_a_request_still_evaluated_at_its_deadline_is_answered_then(without_redis: Settings) -> None:
    slow = rsi_of()

    async def hang(_: DataRequest) -> None:
        await asyncio.Event().wait()

    async def asked():
        async with working(without_redis, lambda: Beside(without_redis, hang)) as stage:
            began = time.monotonic()
            answers = await stage.inbox.ask(envelope_of(slow, deadline=time.time_ns() // 1000 + 200_000))
            return answers, time.monotonic() - began, await at_rest(stage)

    (answer,), took, told = asyncio.run(asked())
    assert answer.problem.error == "DeadlinePassed"
    assert 0.15 < took < 5
    assert (told["expired"], told["in_hand"]) == (1, 0)


def test_what_lies_parked_past_its_deadline_is_answered_by_the_sweep(without_redis: Settings) -> None:
    standing = rsi_of(refresh="on_close")
    envelope = envelope_of(standing, deadline=time.time_ns() // 1000 + 400_000)

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(envelope), stage.inbox.numbered, stage.handler.counts

    (end,), numbered, counts = asyncio.run(asked())
    assert (end.status, end.parts, end.final) == (Status.OK, (), True)
    assert len(numbered[standing.request_id]) == 1
    assert counts.expired == 1


def test_a_quick_request_does_not_wait_for_a_slow_one_of_its_batch(without_redis: Settings) -> None:
    slow, quick = rsi_of(), rsi_of()

    async def asked():
        gate = asyncio.Event()

        async def hold(request: DataRequest) -> None:
            if request.request_id == slow.request_id:
                await gate.wait()

        async with working(without_redis, lambda: Beside(without_redis, hold)) as stage:
            await stage.inbox.send(slow, quick)
            (first,) = await stage.inbox.answers(quick)
            assert slow.request_id not in stage.inbox.finals
            gate.set()
            return first, *await stage.inbox.answers(slow)

    assert [each.status for each in asyncio.run(asked())] == [Status.OK, Status.OK]


def test_a_flood_of_slow_low_work_is_taken_a_few_at_a_time_and_holds_up_nobody(without_redis: Settings) -> None:
    flood = [rsi_of(priority="LOW") for _ in range(100)]

    async def asked():
        gate, held = asyncio.Event(), []

        async def hold(request: DataRequest) -> None:
            if request.priority is DataPriority.LOW:
                held.append(request)
                await gate.wait()

        async with working(without_redis, lambda: Beside(without_redis, hold)) as stage:
            await stage.inbox.send(*flood)
            await eventually(lambda: held)
            urgent = [await stage.inbox.ask(rsi_of(priority=each)) for each in ("CRITICAL", "HIGH", "NORMAL")]
            most = len(held)
            gate.set()
            return urgent, most, await stage.inbox.answers(*flood)

    urgent, most, low = asyncio.run(asked())
    assert [answer.status for (answer,) in urgent] == [Status.OK] * 3
    assert most <= 16
    assert {each.status for each in low} == {Status.OK}


def test_a_flood_of_critical_requests_leaves_low_ones_their_share(without_redis: Settings) -> None:
    order = []

    async def noted(request: DataRequest) -> None:
        order.append(request.priority)

    async def asked():
        async with working(without_redis, lambda: Beside(without_redis, noted)) as stage:
            await stage.inbox.ask(
                *(rsi_of(priority="LOW") for _ in range(20)), *(rsi_of(priority="CRITICAL") for _ in range(300))
            )

    asyncio.run(asked())
    assert order[:10] == [DataPriority.CRITICAL] * 10  # the most urgent first
    assert order.index(DataPriority.LOW) < 40
    assert max(place for place, each in enumerate(order) if each is DataPriority.LOW) < 300


def test_a_clock_that_is_behind_the_senders_gives_no_negative_time(without_redis: Settings) -> None:
    request = rsi_of()

    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(envelope_of(request, sent_at=time.time_ns() // 1000 + 3_600_000_000))

    (answer,) = asyncio.run(asked())
    assert answer.timings_ms["queue"] == 0


def test_a_standing_request_is_told_each_new_bar_once_until_it_is_cancelled(
    without_redis: Settings, market: Market
) -> None:
    bars = raw_bars(310)
    standing = rsi_of(refresh="on_close")

    async def asked():
        async with working(without_redis) as stage:
            inbox = stage.inbox
            await inbox.send(standing)
            numbered = inbox.numbered.setdefault(standing.request_id, [])
            await inbox.until(lambda: len(numbered) == 1)
            for count in (301, 302, 303):
                await asyncio.to_thread(market.deliver, "BTCUSDT", bars[:count])
                stage.transport.announce("bars/BTCUSDT")
                stage.transport.announce("bars/BTCUSDT")
                await inbox.until(partial(has, numbered, count - 299))
            stage.transport.announce("bars/BTCUSDT")  # without a new bar
            await eventually(lambda: stage.handler.counts.parked >= 5)
            cancelled = wire.encode_reply(msgspec.structs.replace(numbered[0], parts=(), final=True))
            assert await inbox.asker.settle(standing.request_id, cancelled)
            await asyncio.to_thread(market.deliver, "BTCUSDT", bars[:304])
            stage.transport.announce("bars/BTCUSDT")
            await inbox.answers(standing)
            await inbox.ask(rsi_of())  # what was announced before was worked off by now
            return list(numbered), await at_rest(stage)

    numbered, told = asyncio.run(asked())
    assert [each.final for each in numbered] == [False] * 4
    assert [each.number for each in numbered] == sorted({each.number for each in numbered})
    steps = [Result(each.parts[0]).available_at for each in numbered]
    assert [(after - before).total_seconds() for before, after in pairwise(steps)] == [900.0] * 3
    assert told["in_hand"] == 0
    assert told["told"] == 4


@pytest.mark.parametrize("latest", [1, 2])
def test_an_answer_after_several_bars_has_all_that_came_since_the_last_one(
    without_redis: Settings, market: Market, latest: int
) -> None:
    bars = raw_bars(310)
    standing = rsi_of(refresh="on_close", latest=latest)

    async def asked():
        async with working(without_redis) as stage:
            numbered = stage.inbox.numbered.setdefault(standing.request_id, [])
            await stage.inbox.send(standing)
            await stage.inbox.until(lambda: len(numbered) == 1)
            for place, count in enumerate((304, 305, 310), 2):
                await asyncio.to_thread(market.deliver, "BTCUSDT", bars[:count])
                stage.transport.announce("bars/BTCUSDT")
                await stage.inbox.until(partial(has, numbered, place))
                stage.transport.announce("bars/BTCUSDT")  # without a new bar
            await eventually(lambda: stage.handler.counts.parked >= 7)
            return list(numbered)

    numbered = asyncio.run(asked())
    times = [Result(each.parts[0]).table.column("open_time").to_pylist() for each in numbered]
    assert len({each[-1] for each in times}) == len(times) == 4, "each is told once"
    assert {time for each in times[1:] for time in each} >= set(bars["open_time"][300:].to_list()), "and none missed"
    assert [len(each) for each in times[1:]] == [max(latest, count) for count in (304 - 300, 1, 5)]


def test_a_bar_that_comes_while_the_one_before_is_evaluated_is_not_missed(
    without_redis: Settings, market: Market
) -> None:
    bars = raw_bars(310)
    standing = rsi_of(refresh="on_close")

    class Slower(Evaluator):
        """Holds back the first outcome that it has, until the bar after it has been announced."""

        def __init__(self, settings: Settings, meanwhile: Callable[[], Awaitable[None]]) -> None:
            super().__init__(settings, worker="test")
            self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

        async def evaluate(self, requests, *runs):
            outcomes = await super().evaluate(requests, *runs)
            meanwhile, self._meanwhile = self._meanwhile, None
            if meanwhile is not None:
                await meanwhile()
            return outcomes

    async def asked():
        stages: list[Stage] = []

        async def meanwhile() -> None:
            await asyncio.to_thread(market.deliver, "BTCUSDT", bars[:301])
            stages[0].transport.announce("bars/BTCUSDT")
            await eventually(lambda: stages[0].transport.turn > 0)

        async with working(without_redis, lambda: Slower(without_redis, meanwhile)) as stage:
            stages.append(stage)
            await stage.inbox.send(standing)
            await stage.inbox.until(lambda: len(stage.inbox.numbered.get(standing.request_id, ())) == 2)
            return stage.inbox.numbered[standing.request_id]

    first, second = asyncio.run(asked())
    assert second.number > first.number


def test_a_second_symbols_bar_of_the_same_close_is_an_answer_of_its_own(
    without_redis: Settings, market: Market
) -> None:
    bars = raw_bars(301)
    market.deliver("ETHUSDT", bars[:300])
    both = rsi_of(refresh="on_close")
    both = msgspec.structs.replace(both, symbols=("BTCUSDT", "ETHUSDT"))

    async def asked():
        async with working(without_redis) as stage:
            numbered = stage.inbox.numbered.setdefault(both.request_id, [])
            await stage.inbox.send(both)
            await stage.inbox.until(lambda: len(numbered) == 1)
            for count, symbol in enumerate(("BTCUSDT", "ETHUSDT"), 2):
                await asyncio.to_thread(market.deliver, symbol, bars)
                stage.transport.announce(f"bars/{symbol}")
                await stage.inbox.until(partial(has, numbered, count))
            return numbered

    numbered = asyncio.run(asked())
    closes = [[part.available_at for part in each.parts] for each in numbered]
    assert closes[1][0] > closes[1][1]
    assert closes[2][0] == closes[2][1] == closes[1][0]


def test_a_correction_of_the_newest_bar_is_told_under_a_higher_number(without_redis: Settings, market: Market) -> None:
    bars = raw_bars(300)
    last = pl.col("open_time") == bars["open_time"][-1]
    standing = rsi_of(refresh="on_close")

    async def asked():
        async with working(without_redis) as stage:
            numbered = stage.inbox.numbered.setdefault(standing.request_id, [])
            await stage.inbox.send(standing)
            await stage.inbox.until(lambda: len(numbered) == 1)
            for count, factor in enumerate((0.999, 0.998), 2):
                close = pl.when(last).then(pl.max_horizontal("low", pl.col("close") * factor)).otherwise("close")
                await asyncio.to_thread(market.deliver, "BTCUSDT", bars.with_columns(close.alias("close")))
                stage.transport.announce("bars/BTCUSDT")
                await stage.inbox.until(partial(has, numbered, count))
            stage.transport.announce("bars/BTCUSDT")  # without a change
            await eventually(lambda: stage.handler.counts.parked >= 4)
            return list(numbered)

    numbered = asyncio.run(asked())
    assert len({each.parts[0].available_at for each in numbered}) == 1
    assert len({Result(each.parts[0]).values[-1] for each in numbered}) == 3
    assert [each.number for each in numbered] == sorted({each.number for each in numbered})


def test_stop_finishes_what_is_in_hand_and_leaves_the_rest(without_redis: Settings) -> None:
    slow, stuck = rsi_of(), rsi_of()

    async def asked():
        gate = asyncio.Event()

        async def hold(request: DataRequest) -> None:
            await (gate if request.request_id == slow.request_id else asyncio.Event()).wait()

        async with working(without_redis, lambda: Beside(without_redis, hold), stop_seconds=0.3) as stage:
            await stage.inbox.send(slow, stuck)
            await eventually(lambda: stage.handler.told()["in_hand"] == 2)
            stage.handler.stop()
            await asyncio.sleep(0)
            gate.set()
        await stage.inbox.answers(slow)
        (record,) = await stage.inbox.asker.look_up([stuck.request_id])
        return record

    record = asyncio.run(asked())
    assert (record.stage, record.answer) == ("taken", None)


def test_what_a_stopped_worker_left_is_claimed_by_the_next(without_redis: Settings) -> None:
    settings = without_redis.model_copy(update={"request_claim_seconds": 0.1})
    request = rsi_of()

    async def asked():
        transport = MemoryTransport(settings)
        inbox = Inbox(transport.asker())
        await inbox.send(request)
        (left,) = await transport.answerer().take({request.priority: 1}, 0)
        assert isinstance(left, Delivery)
        evaluator = Evaluator(settings, worker="next")
        async with evaluator, StrategyDataRequestHandler(settings, transport.answerer(), evaluator) as handler:
            return await inbox.answers(request), handler.counts

    (answer,), counts = asyncio.run(asked())
    assert answer.status is Status.OK
    assert counts.reclaimed == 1


def test_what_ended_three_workers_is_buried_and_answered(without_redis: Settings) -> None:
    settings = without_redis.model_copy(update={"request_claim_seconds": 0.1})
    deadly = rsi_of()

    async def asked():
        transport = MemoryTransport(settings)
        inbox = Inbox(transport.asker())
        await inbox.send(deadly)
        await transport.answerer().take({deadly.priority: 1}, 0)
        for _ in range(2):
            assert await transport.answerer().reclaim(0.0, 1)
        evaluator = Evaluator(settings, worker="next")
        async with evaluator, StrategyDataRequestHandler(settings, transport.answerer(), evaluator) as handler:
            return await inbox.answers(deadly), list(transport.dead), handler.counts

    (answer,), dead, counts = asyncio.run(asked())
    assert answer.status is Status.FAILED
    assert "3 workers ended" in answer.problem.cause
    assert [id for id, _, _ in dead] == [deadly.request_id]
    assert counts.buried == 1


def test_an_answer_that_the_transport_refuses_fails_alone(without_redis: Settings) -> None:
    settings = without_redis.model_copy(update={"request_claim_seconds": 60})
    refused, fine = rsi_of(), rsi_of()

    class Picky(MemoryAnswerer):
        async def settle(self, id: str, body: bytes, delivery: Delivery | None = None) -> bool:
            if id == refused.request_id:
                raise RuntimeError("not this one")
            return await super().settle(id, body, delivery)

        async def settle_many(self, answers):
            return [await self.settle(*each) for each in answers]

    async def asked():
        async with working(settings, answerer=lambda transport: Picky(transport, "picky")) as stage:
            await stage.inbox.send(refused, fine)
            answers = await stage.inbox.answers(fine)
            await eventually(lambda: stage.handler.counts.failures == 1)
            return answers, await at_rest(stage)

    (answer,), told = asyncio.run(asked())
    assert answer.status is Status.OK
    assert told["in_hand"] == 0


@pytest.mark.parametrize("refresh", ["once", "on_close"])
@pytest.mark.parametrize("by", ["its size", "the transport"])
def test_an_answer_that_cannot_be_sent_is_replaced_by_one_that_says_so_and_holds_up_nobody(
    without_redis: Settings, monkeypatch: pytest.MonkeyPatch, by: str, refresh: str
) -> None:
    large, fine = rsi_of(latest=300, refresh=refresh), [rsi_of() for _ in range(5)]
    if by == "its size":
        monkeypatch.setattr("mdplatform.worker.answering.LARGEST_ANSWER_BYTES", 5_000)

    def check(body: bytes) -> None:
        if by == "the transport" and len(body) > 5_000:
            raise TransportRefused("OOM command not allowed")

    class Small(MemoryAnswerer):
        async def settle_many(self, answers):
            for _, body, _ in answers:
                check(body)
            return await super().settle_many(answers)

        async def settle(self, id, body, delivery=None):
            check(body)
            return await super().settle(id, body, delivery)

        async def tell(self, id, body, **more):
            check(body)
            return await super().tell(id, body, **more)

    async def asked():
        async with working(without_redis, answerer=lambda transport: Small(transport, "small")) as stage:
            return await stage.inbox.ask(large, *fine), await at_rest(stage)

    (refused, *others), told = asyncio.run(asked())
    assert (refused.status, refused.parts) == (Status.FAILED, ())
    assert refused.problem.error == {"its size": "AnswerTooLarge", "the transport": "AnswerRefused"}[by]
    assert "fewer rows" in refused.problem.remedy
    assert [each.status for each in others] == [Status.OK] * 5
    assert (told["failures"], told["outages"], told["in_hand"]) == (0, 0, 0)


def test_a_worker_says_that_it_lives_and_what_it_did(without_redis: Settings) -> None:
    async def asked():
        async with working(without_redis) as stage:
            await stage.inbox.ask(rsi_of())
            await eventually(lambda: stage.transport.beats.get("worker-1", {}).get("answered_ok") == 1)

    asyncio.run(asked())


def test_an_unknown_symbol_is_answered_at_once_where_no_run_can_fetch_it(without_redis: Settings) -> None:
    async def asked():
        async with working(without_redis) as stage:
            return await stage.inbox.ask(rsi_of("NOSUCHUSDT"))

    (answer,) = asyncio.run(asked())
    assert answer.status is Status.FAILED
    assert answer.problem.remedy
    assert FIRST_OPEN  # the lake has other symbols


def test_what_was_cancelled_elsewhere_ends_no_loop_and_is_answered(without_redis: Settings) -> None:
    given_up = rsi_of()

    async def give_up(request: DataRequest) -> None:
        if request.request_id == given_up.request_id:
            raise asyncio.CancelledError

    class Nervous(MemoryAnswerer):
        times = 0

        async def take(self, shares, wait_seconds):
            self.times += 1
            if self.times == 2:
                raise asyncio.CancelledError
            return await super().take(shares, wait_seconds)

    async def asked():
        async with working(
            without_redis,
            lambda: Beside(without_redis, give_up),
            lambda transport: Nervous(transport, "nervous"),
        ) as stage:
            return await stage.inbox.ask(given_up, rsi_of())

    failed, fine = asyncio.run(asked())
    assert (failed.status, fine.status) == (Status.FAILED, Status.OK)
