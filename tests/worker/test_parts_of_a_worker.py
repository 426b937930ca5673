"""The small parts of a worker: what it has in hand, its verdicts, its outbox, its counters."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter

import msgspec
import pytest

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Delivery, Record
from mdplatform.requests import making
from mdplatform.requests.answer import AnswerBody, Missing, Part, Problem, Status
from mdplatform.requests.request import DataRequest, RequestType
from mdplatform.requests.wanted import Made, RunWanted
from mdplatform.worker import endings
from mdplatform.worker.evaluator import Outcome
from mdplatform.worker.hands import AT_ONCE, HELD, RESERVED, Hands
from mdplatform.worker.outbox import MOST, Outbox
from mdplatform.worker.verdict import judge, marked

from .handling import envelope_of, rsi_of

CRITICAL, HIGH, NORMAL, LOW = DataPriority
WANTED = RunWanted(
    request_id="r", strategy_id="s", priority=HIGH, partitions={"bars": ("BTCUSDT/2025-03",)}, deadline=0
)


def delivery(request: DataRequest, token: str = "1", **told: object) -> Delivery:
    return Delivery(envelope=envelope_of(request), token=token, **told)


def outcome(
    request: DataRequest, status: Status, *closes: int, wanted: RunWanted | None = None, missing: int = 0
) -> Outcome:
    parts = tuple(Part(source="computed", layer="lake", version="v", available_at=each, rows=1) for each in closes)
    problem = Problem(error="NoData", cause="Nothing there") if status is Status.FAILED else None
    body = AnswerBody(
        request_id=request.request_id, status=status, parts=parts, problem=problem,
        missing=tuple(Missing(cause="not there") for _ in range(missing)),
    )  # fmt: skip
    return Outcome(body, ("bars/BTCUSDT",), wanted, watermark=max(closes, default=0))


def test_a_backlog_of_an_urgent_class_leaves_the_others_their_reserved_share() -> None:
    hands = Hands()
    everything = hands.shares()
    hands.took(everything, Counter(everything))
    assert hands.shares() == RESERVED
    hands.took(RESERVED, Counter({CRITICAL: 3, HIGH: RESERVED[HIGH]}))
    assert hands.shares() == {
        CRITICAL: AT_ONCE[CRITICAL],
        HIGH: AT_ONCE[HIGH],
        NORMAL: RESERVED[NORMAL],
        LOW: RESERVED[LOW],
    }
    hands.took(hands.shares(), Counter())
    assert hands.shares() == everything


def test_a_class_without_room_is_left_out_until_it_has_some_again() -> None:
    hands, held = Hands(), [delivery(rsi_of(priority="LOW")) for _ in range(HELD[LOW])]
    assert all(hands.take(each) for each in held)
    assert not hands.take(held[0])
    assert LOW not in hands.shares()
    assert not hands.freed.is_set()
    hands.drop(held[0])
    assert hands.freed.is_set()
    assert hands.shares()[LOW] == 1


@pytest.mark.parametrize("status", [Status.FAILED, Status.PARTIAL])
def test_what_a_run_could_bring_is_parked_unless_its_runs_are_over_or_there_are_none(status: Status) -> None:
    request = rsi_of()
    lacking = outcome(request, status, *([5] if status is Status.PARTIAL else []), wanted=WANTED, missing=1)
    assert judge(delivery(request), request, lacking, has_runs=True).wanted == WANTED
    assert judge(delivery(request, returned=True), request, lacking, has_runs=True).wanted == WANTED
    assert judge(delivery(request), request, lacking, has_runs=False).final == lacking.body
    over = judge(
        delivery(request, returned=True, note="run 4711 failed: no such month"), request, lacking, has_runs=True
    )
    assert over.wanted is None
    assert over.final is not None
    told = over.final.problem.cause if over.final.problem else over.final.missing[-1].cause
    assert "run 4711 failed: no such month" in told


def test_a_standing_request_is_told_what_there_is_and_asks_for_a_run_once() -> None:
    request = rsi_of(refresh="on_close")
    some = outcome(request, Status.PARTIAL, 900, wanted=WANTED, missing=1)
    first = judge(delivery(request), request, some, has_runs=True)
    assert (first.final, first.update.number, first.update.final, first.wanted) == (None, 900, False, WANTED)
    assert judge(delivery(request, returned=True), request, some, has_runs=True).wanted is None
    nothing = outcome(request, Status.FAILED, wanted=WANTED)
    waiting = judge(delivery(request, returned=True), request, nothing, has_runs=True)
    assert (waiting.final, waiting.update, waiting.wanted) == (None, None, WANTED)
    assert judge(delivery(request, returned=True, note="over"), request, nothing, has_runs=True).final is not None
    empty = judge(delivery(request), request, outcome(request, Status.OK), has_runs=True)
    assert (empty.final, empty.update, empty.wanted) == (None, None, None)


def test_the_number_of_a_standing_answer_grows_with_each_part_that_has_come_and_with_each_correction() -> None:
    request = rsi_of(refresh="on_close")
    steps = [((300, 300), b"a"), ((600, 300), b"b"), ((600, 600), b"c"), ((600, 600), b"d"), ((900, 600), b"e")]
    numbers, last = [], delivery(request)
    for closes, data in steps:
        found = outcome(request, Status.OK, *closes)
        parts = tuple(msgspec.structs.replace(each, data=data) for each in found.body.parts)
        found = dataclasses.replace(found, body=msgspec.structs.replace(found.body, parts=parts))
        verdict = judge(last, request, found, has_runs=True)
        numbers.append(verdict.update.number)
        last = delivery(request, returned=True, told=verdict.update.number, mark=verdict.mark)
        assert verdict.mark == marked(found)
        assert judge(last, request, found, has_runs=True).update is None  # nothing new
    assert numbers == sorted(set(numbers))
    earlier = outcome(request, Status.OK, 600, 600)
    assert judge(last, request, earlier, has_runs=True).update is None


def test_the_outbox_keeps_the_last_entry_with_the_longest_time_and_is_bounded() -> None:
    def made(partition: str, version: str, took_ms: float) -> Made:
        return Made(
            asset="technical_indicators", partition=partition, feature="RSI(timeperiod=14)", timeframe="15m",
            version=version, rows=1, worker="w", request_id="r", strategy_id="s", at=time.time_ns() // 1000,
            took_ms=took_ms,
        )  # fmt: skip

    outbox = Outbox()
    outbox.add([made("a", "1", 9.0), made("b", "1", 1.0), made("a", "2", 2.0)])
    taken = outbox.drain(10)
    assert [(each.partition, each.version, each.took_ms) for each in taken] == [("b", "1", 1.0), ("a", "2", 9.0)]
    outbox.add([made("a", "3", 1.0)])
    outbox.put_back(taken)
    assert {(each.partition, each.version) for each in outbox.drain(10)} == {("b", "1"), ("a", "3")}
    outbox.add(made(str(n), "1", 1.0) for n in range(MOST + 5))
    assert len(outbox) == MOST


def test_an_answer_that_is_made_without_the_request_is_of_its_type() -> None:
    request = making.make("MACRO_INDICATORS", strategy_id="test", series=["CPIAUCSL"])
    sent = envelope_of(request)
    known = Record(
        id=sent.id, priority=HIGH, strategy="test", label="", stage="parked", sent_at=0, deadline=0, body=sent.body
    )
    bodies = endings.expired(sent), endings.deadly(sent, 3), endings.expired(known)
    assert {each.type for each in bodies} == {RequestType.MACRO_INDICATORS}
    assert all(abs(each.answered_at - time.time_ns() // 1000) < 60_000_000 for each in bodies)
    unreadable = endings.expired(msgspec.structs.replace(known, body=b"\xc1"))
    assert unreadable.type is RequestType.TECHNICAL_INDICATORS
