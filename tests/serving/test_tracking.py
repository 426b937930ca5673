"""Tracking: what is near goes when it is written, and is not given where that might not have been heard of."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from mdplatform.serving import near as sharing
from mdplatform.serving import tracking
from mdplatform.serving.keys import need_key
from mdplatform.serving.near import Near
from mdplatform.serving.tracking import BOUND_SECONDS
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from mdplatform.valkey.embedded import embedded
from tests.serving.tracked import held, proxy, read, until

KEY = "mdp:{BTCUSDT}:bars"


@pytest.fixture
def client(settings: Settings, processes: object) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def near(settings: Settings, client: redis.Redis) -> Iterator[Near]:
    near = Near(settings)
    yield near
    near.close()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mdplatform-tracking"]


def test_what_is_written_by_others_goes(near, client):
    macro, sentiment, depth = need_key("macro", "CPIAUCSL"), need_key("sentiment", ""), need_key("depth", "X")
    for key in (KEY, "mdp:{1INCHUSDT}:15m:4f1c", macro, sentiment, depth):
        client.set(key, b"1")
        assert held(near, client, key) == b"1"
        client.set(key, b"2")
        until(lambda key=key: near.get([key]) is None)
        assert held(near, client, key) == b"2"
        client.delete(key)
        until(lambda key=key: near.get([key]) is None)
        assert held(near, client, key) is None


def test_that_there_is_no_key_is_near_until_there_is_one(near, client):
    assert held(near, client, KEY) is None
    assert near.get([KEY]) == [None]
    client.incr(KEY)
    until(lambda: near.get([KEY]) is None)
    assert held(near, client, KEY) == b"1"


def test_what_redis_lets_go_by_itself_goes(near, client):
    client.set(KEY, b"1", px=300)
    held(near, client, KEY)
    until(lambda: near.get([KEY]) != [b"1"])
    assert held(near, client, KEY) is None


def test_a_flush_forgets_all(near, client):
    keys = [f"mdp:{{S{number}}}:bars" for number in range(50)]
    for command in ("FLUSHALL", "FLUSHDB"):
        client.mset(dict.fromkeys(keys, b"1"))
        for key in keys:
            held(near, client, key)
        client.execute_command(command)
        until(lambda: all(near.get([key]) is None for key in keys))
        assert held(near, client, keys[0]) is None


def test_many_keys_at_once_go_at_once(near, client):
    keys = [f"mdp:{{S{number}}}:bars" for number in range(3000)]
    client.mset(dict.fromkeys(keys, b"1"))
    held(near, client, keys[0])
    with near.filling(keys) as kept:
        kept.update(zip(keys, client.mget(keys), strict=True))
    until(lambda: near.get(keys))
    client.mset(dict.fromkeys(keys, b"2"))
    until(lambda: all(near.get([key]) is None for key in keys))


def test_keys_that_are_not_told_of_are_never_held(near, client):
    held(near, client, KEY)
    for key in ("mdp:{requests}:changes", "mdp:{live}:heads", "other"):
        client.delete(key)
        with near.filling([key]) as kept:
            kept[key] = None
        assert near.get([key]) is None


def test_a_connection_that_is_killed_is_made_anew_and_what_was_missed_is_not_given(near, client):
    client.set(KEY, b"1")
    held(near, client, KEY)
    tracker = next(each for each in client.client_list() if "B" in each["flags"])
    with client.pipeline(transaction=True) as pipe:
        pipe.execute_command("CLIENT", "KILL", "ID", tracker["id"])
        pipe.set(KEY, b"2")
        pipe.execute()
    written = time.monotonic()
    end = written + BOUND_SECONDS + 0.2
    while (asked := time.monotonic()) < end:
        given = near.get([KEY])
        assert given is None or asked <= written + BOUND_SECONDS
    assert held(near, client, KEY) == b"2"
    assert next(each for each in client.client_list() if "B" in each["flags"])["id"] != tracker["id"]


def test_a_key_of_others_that_is_no_text_is_passed_over(near, client):
    client.set(KEY, b"1")
    held(near, client, KEY)
    tracker = next(each for each in client.client_list() if "B" in each["flags"])
    client.set(b"mdp:{B\xff}:bars", b"1")
    client.set(KEY, b"2")
    until(lambda: near.get([KEY]) is None)
    assert held(near, client, KEY) == b"2"
    assert next(each for each in client.client_list() if "B" in each["flags"])["id"] == tracker["id"]


def test_a_failure_that_nobody_thought_of_is_said_and_tried_again(near, client, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.01)
    client.set(KEY, b"1")
    held(near, client, KEY)
    cache = near._shared.cache
    with monkeypatch.context() as broken:
        broken.setattr(cache, "forget", lambda keys: 1 // 0)
        client.set(KEY, b"2")
        until(lambda: near.get([KEY]) is None)
        until(lambda: "ZeroDivisionError" in caplog.text)
    assert held(near, client, KEY) == b"2"
    client.set(KEY, b"3")
    until(lambda: near.get([KEY]) is None)
    assert held(near, client, KEY) == b"3"


def test_a_process_that_stands_still_in_the_middle_of_a_read_gives_nothing_that_is_older(near, client, monkeypatch):
    client.set(KEY, b"1")
    held(near, client, KEY)
    cache = near._shared.cache
    get = cache.get

    def late(keys):
        found, began = get(keys), time.monotonic()
        until(lambda: time.monotonic() > began + BOUND_SECONDS)
        return found

    with monkeypatch.context() as slow:
        slow.setattr(cache, "get", late)
        assert near.get([KEY]) is None
    assert held(near, client, KEY) == b"1"


def test_a_server_that_stands_still_is_noticed_within_the_bound(near, client, processes):
    client.set(KEY, b"1")
    held(near, client, KEY)
    os.kill(processes.server(), signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        last = stopped
        while (asked := time.monotonic()) < stopped + 3 * BOUND_SECONDS:
            if near.get([KEY]) is not None:
                last = asked
        assert last - stopped <= BOUND_SECONDS
    finally:
        os.kill(processes.server(), signal.SIGCONT)
    assert held(near, client, KEY) == b"1"


def test_a_connection_that_swallows_all_is_noticed_within_the_bound_and_given_up(settings, client):
    client.set(KEY, b"1")
    with proxy(embedded(settings).path) as between:
        near = Near(settings.model_copy(update={"redis_url": between.url}))
        held(near, client, KEY)
        tracker = next(each for each in client.client_list() if "B" in each["flags"])
        between.swallows = True
        client.set(KEY, b"2")
        written = time.monotonic()
        while (asked := time.monotonic()) < written + 3 * BOUND_SECONDS:
            assert near.get([KEY]) is None or asked <= written + BOUND_SECONDS
        until(lambda: tracker["id"] not in [each["id"] for each in client.client_list()])
        between.swallows = False
        assert held(near, client, KEY) == b"2"
        near.close()


def test_a_server_that_comes_back_empty_has_nothing_near_from_before(settings, client, processes):
    client.config_set("appendonly", "no")
    near = Near(settings)
    client.set(KEY, b"1")
    held(near, client, KEY)
    os.kill(processes.server(), signal.SIGKILL)
    until(lambda: near.get([KEY]) is None)
    client.delete(KEY)  # starts it again
    assert held(near, client, KEY) is None
    near.close()


def test_a_child_of_a_fork_begins_anew(near, client, settings):
    client.set(KEY, b"1")
    held(near, client, KEY)
    child = os.fork()
    if not child:  # pragma: no cover
        status = 1
        try:
            with connect(settings) as own:
                status = 0 if near.get([KEY]) is None and held(near, own, KEY) == b"1" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.set(KEY, b"2")
    until(lambda: near.get([KEY]) is None)
    assert held(near, client, KEY) == b"2"


def test_readers_of_a_process_share_one_connection_until_the_last_is_closed(settings, client):
    gc.collect()
    some = [Near(settings) for _ in range(5)]
    for each in some:
        held(each, client, KEY)
    assert len(threads()) == 1
    assert len([each for each in client.client_list() if "B" in each["flags"]]) == 1
    for each in some[:-1]:
        each.close()
        each.close()
    assert held(some[-1], client, KEY) is None
    some[-1].close()
    assert threads() == []
    assert sharing._shared == {}
    until(lambda: not [each for each in client.client_list() if "B" in each["flags"]])


def test_a_near_that_was_closed_can_be_used_again(near, client):
    held(near, client, KEY)
    near.close()
    assert near.get([KEY]) is None
    assert held(near, client, KEY) is None


def test_no_memory_means_no_near_cache_and_no_connection(settings, client):
    near = Near(settings.model_copy(update={"near_cache_mb": 0}))
    assert [read(near, client, KEY)[1] for _ in range(20)] == [False] * 20
    assert threads() == []
    near.close()


def test_a_redis_that_does_not_track_is_told_once_and_read_as_before(settings, client, caplog):
    client.execute_command("ACL", "SETUSER", "plain", "on", ">word", "~*", "+@all", "-client|tracking")
    path = embedded(settings).path
    own = settings.model_copy(update={"redis_url": f"unix://plain:word@{path}"})
    near = Near(own)
    with caplog.at_level(logging.WARNING, "mdplatform.serving.tracking"):
        until(lambda: [read(near, client, KEY)] and caplog.records)
    assert "go without a near cache" in caplog.text
    assert "word" not in caplog.text
    assert near.get([KEY]) is None
    near.close()


def test_a_redis_that_is_away_has_no_thread_asking_for_it(settings):
    near = Near(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with pytest.raises(redis.ConnectionError), near.filling([KEY]):
        raise redis.ConnectionError("away")
    assert near.get([KEY]) is None
    assert threads() == []
    near.close()


def test_redis_itself_tells_as_valkey_does(settings, tmp_path: Path):
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [binary, "--port", str(port), "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    try:
        own = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})
        near = Near(own)
        with connect(own) as client:
            until(lambda: _answers(client))
            client.set(KEY, b"1")
            assert held(near, client, KEY) == b"1"
            client.set(KEY, b"2")
            until(lambda: near.get([KEY]) is None)
            assert held(near, client, KEY) == b"2"
            client.flushall()
            until(lambda: near.get([KEY]) is None)
            assert held(near, client, KEY) is None
        near.close()
    finally:
        server.kill()
        server.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
