"""A real RabbitMQ node for tests, shared by all processes of a test run and gone when the last of them has ended.

1. A user holds a share of `users.lock` in the node's folder; the kernel gives it back however the process ends.
2. Who finds no node takes `start.lock`, starts this file as a program (the minder) and waits for its `port` file.
3. The minder starts `epmd` and the server as its children, on loopback, with their own folders, cookie and ports, and
   starts the server again when it ends. It ends everything when nobody holds a share of `users.lock` any more.
4. A test holds a share of `calm.lock` while it needs the node undisturbed; who kills the server holds all of it, and
   is not overtaken while it waits for that (`turn.lock`).

Each user has a virtual host of its own, so that tests at the same time do not see each other's queues.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER, PASSWORD = "strategies", "p@ss:w/ord%"
QUOTED = "p%40ss%3Aw%2Ford%25"
HOSTS = tuple(f"test{number}" for number in range(8))
START_SECONDS = 90.0


class Node:
    """The node as one test process sees it; `close` gives the share back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._share = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._share, fcntl.LOCK_SH)
        self._host = self._own_host()
        with _locked(folder / "start.lock", fcntl.LOCK_EX):
            if not (folder / "port").exists():
                subprocess.Popen(
                    [sys.executable, __file__, str(folder)],
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=(folder / "minder.log").open("ab"),
                    stderr=subprocess.STDOUT,
                )
            self.wait()

    @property
    def url(self) -> str:
        """The address of this process's virtual host, with user and password."""
        return f"amqp://{USER}:{QUOTED}@127.0.0.1:{self._port()}/{HOSTS[self._host]}"

    def wait(self) -> None:
        """Wait until the server takes connections."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError, ValueError),
                socket.create_connection(("127.0.0.1", self._port()), 1.0) as probe,
            ):
                probe.settimeout(5.0)
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                if probe.recv(1):
                    return
            time.sleep(0.05)
        log = (self.folder / "minder.log").read_text()[-2000:]
        raise TimeoutError(f"RabbitMQ did not start in {START_SECONDS:.0f} s:\n{log}")

    @contextlib.contextmanager
    def calm(self) -> Iterator[None]:
        """Keep others from disturbing the node meanwhile."""
        with contextlib.ExitStack() as held:
            with _locked(self.folder / "turn.lock", fcntl.LOCK_EX):  # who waits to be alone has it
                held.enter_context(_locked(self.folder / "calm.lock", fcntl.LOCK_SH))
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else uses the node, and keep it so meanwhile."""
        with _locked(self.folder / "turn.lock", fcntl.LOCK_EX), _locked(self.folder / "calm.lock", fcntl.LOCK_EX):
            yield

    async def clear(self) -> None:
        """Delete this process's queues."""
        import aio_pika

        from mdplatform.messaging.rabbitmq.link import DEAD, QUESTIONS, QUEUES

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            for queue in (*QUEUES.values(), QUESTIONS, DEAD):
                await channel.queue_delete(queue)

    def kill(self) -> None:
        """Kill the server with SIGKILL; the minder starts it again. Hold `alone`."""
        pid = int((self.folder / "pid").read_text())
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([handle], [], [], 10.0)
        os.close(handle)

    def close(self) -> None:
        """Give the share back; the last one waits until everything has ended."""
        os.close(self._own)
        try:
            minder = os.pidfd_open(int((self.folder / "minder").read_text()))
        except ProcessLookupError:
            os.close(self._share)
            return
        try:
            fcntl.flock(self._share, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody else uses it
            os.close(self._share)
        else:
            os.close(self._share)
            select.select([minder], [], [], 20.0)
        os.close(minder)

    def _port(self) -> int:
        return int((self.folder / "port").read_text())

    def _own_host(self) -> int:
        for number in range(len(HOSTS)):
            self._own = os.open(self.folder / f"host{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number
            os.close(self._own)
        raise RuntimeError("More test processes than virtual hosts")


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _prepare(folder: Path) -> tuple[int, int, dict[str, str]]:
    """Write the node's configuration; give its port, the one of epmd, and the environment."""
    home = folder / "home"
    for path in (home, folder / "log", folder / "mnesia"):
        path.mkdir(exist_ok=True)
    cookie = home / ".erlang.cookie"
    cookie.write_text(os.urandom(16).hex())
    cookie.chmod(0o400)
    port, distribution, names = _free_ports(3)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    (folder / "definitions.json").write_text(
        json.dumps(
            {
                "users": [{"name": USER, "password": PASSWORD, "tags": ""}],
                "vhosts": [{"name": name} for name in HOSTS],
                "permissions": [{"user": USER, "vhost": name, **everything} for name in HOSTS],
            }
        )
    )
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{port}\n"
        f"load_definitions = {folder / 'definitions.json'}\n"
        "log.console = true\nlog.console.level = warning\nlog.file = false\n"
        "disk_free_limit.absolute = 50MB\n"
    )
    (folder / "plugins").write_text("[].")
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_ALLOW_INPUT": "1",  # the script then becomes the server instead of its parent
        "RABBITMQ_NODENAME": "tests@localhost",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
    }
    return port, names, environment


def mind(folder: Path) -> None:
    """Run the server until nobody uses it any more."""
    port, names, environment = _prepare(folder)
    _write(folder / "minder", os.getpid())
    names_server = [shutil.which("epmd") or "epmd", "-port", str(names), "-address", "127.0.0.1"]
    epmd = subprocess.Popen(names_server, preexec_fn=_end_with_parent)
    server = None
    users = os.open(folder / "users.lock", os.O_RDWR)
    try:
        while True:
            if server is None or server.poll() is not None:
                server = subprocess.Popen(
                    [str(BINARY), "-noinput"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    preexec_fn=_end_with_parent,
                )
                _write(folder / "pid", server.pid)
                _write(folder / "port", port)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.1)
    finally:
        (folder / "port").unlink(missing_ok=True)
        for process in (server, epmd):
            if process is not None:
                process.kill()
                process.wait()
        # the lock goes with this process, so that whoever waits for it finds nothing left


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _write(path: Path, number: int) -> None:
    part = path.with_suffix(".part")
    part.write_text(str(number))
    part.replace(path)


if __name__ == "__main__":
    mind(Path(sys.argv[1]))
