"""The near cache: what is written while it is read is not kept, in any order of events; and it is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from mdplatform.serving.near_cache import Fill, NearCache


@pytest.fixture
def cache() -> NearCache:
    opened = NearCache(100_000)
    opened.open()
    return opened


def fill(cache: NearCache, values: dict[str, bytes | None]) -> None:
    begun = cache.begin(values)
    assert begun is not None
    cache.keep(begun, values)


def test_what_is_read_is_held_until_it_is_written(cache: NearCache) -> None:
    fill(cache, {"a": b"1", "b": b"2"})
    assert cache.get(["b", "a"]) == [b"2", b"1"]
    cache.forget(["a", "unknown"])
    assert cache.get(["a"]) is None
    assert cache.get(["b"]) == [b"2"]


def test_that_a_key_does_not_exist_is_held_like_a_value(cache: NearCache) -> None:
    fill(cache, {"a": None})
    assert cache.get(["a"]) == [None]
    cache.forget(["a"])
    assert cache.get(["a"]) is None


def test_what_is_written_while_it_is_read_is_not_kept(cache: NearCache) -> None:
    begun = cache.begin(["a", "b"])
    assert begun is not None
    cache.forget(["a"])
    cache.keep(begun, {"a": b"old", "b": b"2"})
    assert cache.get(["a"]) is None
    assert cache.get(["b"]) == [b"2"]
    fill(cache, {"a": b"new"})
    assert cache.get(["a"]) == [b"new"]


def test_a_read_that_began_after_the_write_is_kept_beside_one_that_began_before(cache: NearCache) -> None:
    before = cache.begin(["a"])
    cache.forget(["a"])
    after = cache.begin(["a"])
    assert before is not None
    assert after is not None
    cache.keep(after, {"a": b"new"})
    cache.keep(before, {"a": b"old"})
    assert cache.get(["a"]) == [b"new"]
    assert cache.filling == 0


def test_a_crowd_of_readers_of_one_key_keeps_what_the_first_has_read(cache: NearCache) -> None:
    crowd = [cache.begin(["a", "a"]) for _ in range(100)]
    for each in crowd:
        assert each is not None
        cache.keep(each, {"a": b"1"})
        assert cache.get(["a"]) == [b"1"]
    assert cache.filling == 0


def test_a_read_that_failed_leaves_nothing(cache: NearCache) -> None:
    begun = cache.begin(["a"])
    assert begun is not None
    cache.keep(begun, {})
    assert cache.get(["a"]) is None
    assert (len(cache), cache.size, cache.filling) == (0, 0, 0)


def test_a_flush_forgets_all_and_voids_all_that_is_being_read(cache: NearCache) -> None:
    fill(cache, {"a": b"1"})
    begun = cache.begin(["b"])
    assert begun is not None
    cache.forget(None)
    cache.keep(begun, {"b": b"old"})
    assert cache.get(["a"]) is cache.get(["b"]) is None
    assert cache.size == 0


def test_nothing_is_held_or_begun_while_nobody_tells_of_writes(cache: NearCache) -> None:
    fill(cache, {"a": b"1"})
    begun = cache.begin(["b"])
    assert begun is not None
    cache.close()
    cache.open()  # a new connection, which tells nothing of what was written in between
    cache.keep(begun, {"b": b"old"})
    assert cache.get(["a"]) is cache.get(["b"]) is None
    cache.close()
    assert cache.begin(["a"]) is None


def test_bytes_are_bounded_and_the_longest_unused_goes_first() -> None:
    cache = NearCache(10_000)
    cache.open()
    for number in range(9):
        fill(cache, {f"key{number}": b"x" * 1_000})
        cache.get(["key0"])
    assert cache.size <= 10_000
    assert cache.get(["key0"]) is not None
    assert cache.get(["key1"]) is None
    fill(cache, {"too large": b"x" * 10_000})
    assert cache.get(["too large"]) is None
    assert cache.get(["key0"]) is not None
    for number in range(100_000 // 300):
        fill(cache, {f"absent{number}": None})
    assert cache.size <= 10_000
    assert len(cache) < 34


def test_another_form_of_a_value_takes_its_place_only_where_it_is_held_still(cache: NearCache) -> None:
    raw = b"1"
    fill(cache, {"a": raw})
    cache.replace("a", raw, 1)
    assert cache.get(["a"]) == [1]
    cache.replace("a", raw, 2)
    assert cache.get(["a"]) == [1]
    cache.forget(["a"])
    cache.replace("a", 1, 3)
    assert cache.get(["a"]) is None


class Server:
    """Two keys, and the words of their writes on their way: answers to reads may overtake them, or fall behind."""

    def __init__(self) -> None:
        self.cache = NearCache(100_000)
        self.cache.open()
        self.values = {"a": 0, "b": 0}
        self.told: list[list[str] | None] = []
        self.reading: list[tuple[Fill, dict[str, bytes | None]]] = []

    def write(self, key: str) -> None:
        self.values[key] += 1
        self.told.append([key])

    def read(self, key: str) -> None:
        begun = self.cache.begin([key])
        assert begun is not None
        self.reading.append((begun, {key: str(self.values[key]).encode()}))

    def arrive(self, which: int) -> None:
        if self.reading:
            begun, values = self.reading.pop(which % len(self.reading))
            self.cache.keep(begun, values)

    def hear(self) -> None:
        if self.told:
            self.cache.forget(self.told.pop(0))


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "read"]), st.sampled_from(["a", "b"])),
        st.tuples(st.just("arrive"), st.integers(0, 3)),
        st.just(("hear",)),
    ),
    max_size=40,
)


@tried(max_examples=150, deadline=None)
@given(events=EVENTS)
def test_once_all_is_heard_no_value_is_wrong_in_any_order(events: list[tuple[str, ...]]) -> None:
    server = Server()
    for name, *given_to in events:
        getattr(server, name)(*given_to)
    while server.told or server.reading:
        server.hear()
        server.arrive(0)
    for key, value in server.values.items():
        assert server.cache.get([key]) in (None, [str(value).encode()])
    assert server.cache.filling == 0
