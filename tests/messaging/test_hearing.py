"""The rule by which posts are given, where servers forget and pushes overtake what is read."""

from __future__ import annotations

from mdplatform.messaging.broadcast import Missed, Post
from mdplatform.messaging.hearing import Hearing, Shelf


def test_a_push_is_not_given_before_its_topic_was_read_from_a_server_that_may_have_forgotten():
    hearing = Hearing()
    hearing.add({"A": "1000-100"})
    hearing.fall_behind()  # connected anew; 98 to 100 were forgotten, and others came under these numbers
    found: list[Post | Missed] = []
    hearing.push("A", b"3000-101 new", found)
    assert found == []
    assert hearing.cursors == {"A": "1000-100"}
    places, count = hearing.to_read(64)
    hearing.read(places, [Shelf("3000-101", (("2000-100", b"other"), ("3000-101", b"new")))], count, found)
    assert [each.place for each in found if isinstance(each, Post)] == ["2000-100", "3000-101"]
    hearing.push("A", b"3000-102 next", found)
    assert found[-1] == Post("A", b"next", {}, "3000-102")
