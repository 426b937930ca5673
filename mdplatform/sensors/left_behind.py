"""Runs left behind: those whose process was killed before it could say so. Nobody else would end them.

As long as such a run is not marked as failed it holds a place among the runs that may be in progress, and requests wait
for what it should bring. Two kinds are found:

- *Runs of commands* run inside the command's process, and say in a tag which it is. Every command looks for them.
- *Runs of the daemon* have a process each, whose id is the first thing that it logs. The code server that launched one
  fails it if its process dies, but not if it dies too, as when all are killed together. So a run is left behind if its
  code server and its process, if it has logged one, are gone. Who is the daemon looks for them: a command may run in
  another container, where process ids mean other processes.

A run is read again once its process is known to be gone: what it wrote last counts. Its tag `LEFT_BEHIND` says that
nothing is wrong with what it was to do, so that requests do not join it and want it anew.
"""

import json
import os
import socket
from pathlib import Path

import dagster as dg

PROCESS_TAG = "mdplatform/process"
LEFT_BEHIND = {"mdplatform/left_behind": "true"}
_GRPC_TAG = ".dagster/grpc_info"
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = "The process that ran this has ended without a word."
_WORDS_OF_RUNS = (b"multiprocessing", b"execute_run")  # how a code server, and the command line, start one
_CONNECT_SECONDS = 1.0


def this_process() -> str:
    """Give the tag's value for this process: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def fail_left_behind(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs of commands of this host that are gone; give their run ids."""
    found = [run for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)) if _is_of_dead_command(run)]
    return _fail(instance, found)


def fail_dead(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs of this home's daemon whose process is gone; give their run ids. For the daemon alone."""
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        return []
    found = [run for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)) if _is_dead(instance, run)]
    return _fail(instance, found)


@dg.sensor(
    name="left_behind",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks as failed the runs whose process was killed.",
)
def left_behind(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look once; this starts no run."""
    failed = [*fail_left_behind(context.instance), *fail_dead(context.instance)]
    return dg.SkipReason(f"Marked as failed: {', '.join(failed)}" if failed else "Nothing was left behind.")


def _fail(instance: dg.DagsterInstance, runs: list[dg.DagsterRun]) -> list[str]:
    failed = []
    for each in runs:
        run = instance.get_run_by_id(each.run_id)
        if run is not None and not run.is_finished:
            instance.add_run_tags(run.run_id, LEFT_BEHIND)
            instance.report_run_failed(run, _ENDED)
            failed.append(run.run_id)
    return failed


def _is_of_dead_command(run: dg.DagsterRun) -> bool:
    host, _, process = run.tags.get(PROCESS_TAG, "").rpartition(":")
    return host == socket.gethostname() and not _is_alive(int(process))


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    if _GRPC_TAG not in run.tags:
        return False  # not launched yet, or of a command
    server = json.loads(run.tags[_GRPC_TAG])
    if server.get("host") != "localhost" or _answers(server):
        return False
    process = _process_of(instance, run)
    return process is None or not (_is_alive(process) and _is_of_a_run(process))


def _process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """Give the process id that a run has logged."""
    logged = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=20).records
    for record in logged:
        event = record.event_log_entry.dagster_event
        process = event.engine_event_data.metadata.get("pid") if event is not None else None
        if process is not None:
            return int(str(process.value))
    return None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_of_a_run(process: int) -> bool:
    """Tell a run's process from another that has got its number, and from one that nobody has buried."""
    told = Path(f"/proc/{process}/cmdline")
    if not Path("/proc/self/cmdline").exists():
        return True
    try:
        words = told.read_bytes()
    except OSError:
        return False
    return any(each in words for each in _WORDS_OF_RUNS)


def _answers(server: dict[str, object]) -> bool:
    """Tell whether a code server takes connections, as far as that can be told."""
    if not (path := server.get("socket")):
        return True
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True
