"""Work under way is joined by who asks for the same, until it has ended."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mdplatform.worker.flights import Flights
from mdplatform.worker.threads import Threads


def test_the_first_begins_and_others_join_until_it_lands():
    async def fly():
        flights: Flights[int] = Flights()
        first, is_new = flights.join("a")
        second, is_second_new = flights.join("a")
        other, is_other_new = flights.join("b")
        assert (is_new, is_second_new, is_other_new) == (True, False, True)
        assert first is second is not other
        first.set_result(1)
        other.set_exception(ValueError("b"))
        await asyncio.wait([first, other])
        await asyncio.sleep(0)
        assert len(flights) == 0
        assert flights.join("a")[1]
        assert other.exception() is not None
        return await second

    assert asyncio.run(fly()) == 1


def test_urgent_work_goes_first_and_one_thread_is_kept_for_it():
    async def work():
        threads, hold, order = Threads(2), threading.Event(), []
        held = threads.run(3, lambda: hold.wait(10))
        slow = [threads.run(rank, lambda rank=rank: order.append(rank)) for rank in (3, 3, 2)]
        urgent = threads.run(0, lambda: order.append(0)).future
        await asyncio.wait_for(urgent, 10)
        assert not any(each.has_begun for each in slow)
        hurried = threads.run(3, lambda: order.append("hurried"))
        threads.hurry(hurried, 1)
        await asyncio.wait_for(hurried.future, 10)
        given_up = threads.run(3, lambda: order.append("given up"))
        given_up.future.cancel()
        hold.set()
        await asyncio.gather(held.future, *(each.future for each in slow))
        failing = threads.run(0, lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await failing.future
        await threads.run(3, lambda: None).future
        threads.close()
        return order

    assert asyncio.run(work()) == [0, "hurried", 2, 3, 3]
