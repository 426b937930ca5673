"""Runs left behind: those that ran inside a command's process which was killed. Nobody else would end them.

A run that the command line makes says in a tag which process runs it. As long as it is not marked as failed it holds a
place among the runs that may be in progress, and so keeps others waiting.
"""

import os
import socket

import dagster as dg

PROCESS_TAG = "mdplatform/process"


def this_process() -> str:
    """Give the tag's value for this process: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def fail_left_behind(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs of processes of this host that are gone; give their run ids."""
    unfinished = [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        host, _, process = run.tags.get(PROCESS_TAG, "").rpartition(":")
        if host == socket.gethostname() and not _is_alive(int(process)):
            instance.report_run_failed(run, "The process that ran this has ended without a word.")
            failed.append(run.run_id)
    return failed


@dg.sensor(
    name="left_behind",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks as failed the runs of commands that were killed.",
)
def left_behind(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look once; this starts no run."""
    failed = fail_left_behind(context.instance)
    return dg.SkipReason(f"Marked as failed: {', '.join(failed)}" if failed else "Nothing was left behind.")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
