"""The runs that requests wait for: their jobs, the tags by which they are found, and how they ended.

A run has a tag for each request that waits for it (`mdplatform.request/<id>`), so that it is found in Dagster's UI by
any of them, one for each strategy as far as they are few, and one with the lake's keys of its partitions. `PATH` is on
all of them: so one query finds the runs of thousands of requests.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from mdplatform.assets.bars import BarsConfig
from mdplatform.assets.macro_series import MacroSeriesConfig
from mdplatform.assets.trades import TradesConfig
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.wanted import RunWanted
from mdplatform.sensors.left_behind import LEFT_BEHIND
from mdplatform.sensors.request_work import Work

PATH = {"mdplatform/path": "requests"}
PARTITIONS_TAG = "mdplatform/partitions"
REQUEST_TAG = "mdplatform.request/"
STRATEGY_TAG = "mdplatform.strategy/"
PRIORITY_TAG = "dagster/priority"
MAX_RUNTIME_TAG = "dagster/max_runtime"
LONGEST_RUN_SECONDS = 1_800
"""After so long a run for requests is ended: it hangs, and keeps others waiting."""
MOST_RUNS = 5_000
_MOST_STRATEGIES = 20
_LONGEST_ERROR = 500
_LONGEST_TAG = 63
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9_.-]")
_CLASS_NAME = re.compile(r"^[\w.]+\.\w+: ")
_QUEUE_PRIORITY = {
    DataPriority.CRITICAL: "30",
    DataPriority.HIGH: "20",
    DataPriority.NORMAL: "10",
    DataPriority.LOW: "0",
}
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

JOBS = {
    "bars": dg.define_asset_job(
        "requested_bars",
        selection=["bars", "technical_indicators"],
        description="Months of bars that strategies asked for and nobody had taken in; with their indicators.",
    ),
    "trades": dg.define_asset_job(
        "requested_trades",
        selection=["trades", "volume_profile"],
        description="Days of trades that strategies asked for and nobody had taken in; with their profiles.",
    ),
    "macro_series": dg.define_asset_job(
        "requested_macro_series",
        selection=["macro_series", "macro_features"],
        description="Macro series that strategies asked for and nobody had taken in; with what was known of them.",
    ),
}
"""The job of each asset that requests may want: it asks the source, merges, announces, and makes what follows."""


def run_request(work: Work, place: str, source: str | None) -> dg.RunRequest:
    """Ask for a run. The same work of a tick that began at the same `place` has the same key, and is run once."""
    return dg.RunRequest(
        run_key=f"{work.asset} {work.first} … {work.last} @{place}",
        job_name=JOBS[work.asset].name,
        run_config=_config(work, source),
        tags={
            "dagster/asset_partition_range_start": work.first,
            "dagster/asset_partition_range_end": work.last,
            PARTITIONS_TAG: " ".join(work.keys),
            PRIORITY_TAG: _QUEUE_PRIORITY[work.priority],
            MAX_RUNTIME_TAG: str(LONGEST_RUN_SECONDS),
            **PATH,
            **request_tags(work.requests),
        },
    )


def request_tags(requests: Iterable[RunWanted]) -> dict[str, str]:
    """Give the tags that say who waits: one for each request, and for the first strategies.

    >>> wanted = RunWanted(request_id="0a", strategy_id="mo 1", priority="HIGH", partitions={}, deadline=0)
    >>> request_tags([wanted])
    {'mdplatform.request/0a': '0a', 'mdplatform.strategy/mo_1': 'mo 1'}
    """
    each = list(requests)
    strategies = list(dict.fromkeys(one.strategy_id for one in each if one.strategy_id))[:_MOST_STRATEGIES]
    return {request_tag(one.request_id): one.request_id for one in each} | {
        f"{STRATEGY_TAG}{_NOT_IN_A_TAG.sub('_', name)[:_LONGEST_TAG]}": name for name in strategies
    }


def request_tag(id: str) -> str:
    """Give the name of the tag for a request; of an id that Dagster does not take as it is, it ends in a hash.

    >>> request_tag("0a-1"), request_tag("a:b"), request_tag("a_b")
    ('mdplatform.request/0a-1', 'mdplatform.request/a_b-6783a31eabf6', 'mdplatform.request/a_b')
    """
    allowed = _NOT_IN_A_TAG.sub("_", id)
    if allowed == id and len(id) <= _LONGEST_TAG:
        return f"{REQUEST_TAG}{id}"
    digest = hashlib.sha256(id.encode()).hexdigest()[:12]
    return f"{REQUEST_TAG}{allowed[: _LONGEST_TAG - 13]}-{digest}"


def _config(work: Work, source: str | None) -> dg.RunConfig:
    symbols = sorted({key.partition("/")[0] for key in work.keys})
    config: dict[str, dg.Config] = {
        "bars": BarsConfig(fetch=True, source=source, source_for=symbols),
        "trades": TradesConfig(fetch=True, source=source),
        "macro_series": MacroSeriesConfig(fetch=True, new=True),
    }
    return dg.RunConfig(ops={work.asset: config[work.asset]}, loggers={"console": {"config": {"log_level": "WARNING"}}})


def join(instance: dg.DagsterInstance, run: dg.DagsterRun, requests: Iterable[RunWanted]) -> None:
    """Let requests wait for a run that was asked for already; one that is queued becomes as urgent as they are."""
    each = list(requests)
    tags = request_tags(each)
    urgent = min((one.priority for one in each), key=lambda one: one.rank)
    if int(run.tags.get(PRIORITY_TAG, "0")) < int(_QUEUE_PRIORITY[urgent]):
        tags[PRIORITY_TAG] = _QUEUE_PRIORITY[urgent]
    new = {name: value for name, value in tags.items() if run.tags.get(name) != value}
    if new:
        instance.add_run_tags(run.run_id, new)


def current_runs(instance: dg.DagsterInstance, finished_after: datetime) -> list[dg.DagsterRun]:
    """Give the runs for requests that are not over, or ended after that instant; none that was left behind.

    By when they ended, not by when they were changed: who joins a run that is over changes it by a tag.
    """
    changed = instance.get_run_records(dg.RunsFilter(tags=PATH, updated_after=finished_after), limit=MOST_RUNS)
    recent = [each.dagster_run for each in changed if _ended_at(each) > finished_after]
    unfinished = instance.get_runs(dg.RunsFilter(tags=PATH, statuses=UNFINISHED), limit=MOST_RUNS)
    current = {run.run_id: run for run in (*recent, *unfinished)}
    return [run for run in current.values() if not was_left_behind(run)]


def _ended_at(record: dg.RunRecord) -> datetime:
    if record.end_time is None:
        return record.create_timestamp
    return datetime.fromtimestamp(record.end_time, UTC)


def was_left_behind(run: dg.DagsterRun) -> bool:
    """Tell whether a run ended because its process was killed: it says nothing of what it was to bring."""
    return LEFT_BEHIND.items() <= run.tags.items()


def asked_partitions(runs: Iterable[dg.DagsterRun]) -> dict[tuple[str, str], str]:
    """Give the run that was asked for each (asset, partition); one that is not over goes before one that is."""
    of_job = {job.name: asset for asset, job in JOBS.items()}
    found: dict[tuple[str, str], str] = {}
    for run in sorted(runs, key=lambda run: run.is_finished):
        for key in run.tags.get(PARTITIONS_TAG, "").split():
            found.setdefault((of_job[run.job_name], key), run.run_id)
    return found


def runs_by_request(runs: Iterable[dg.DagsterRun]) -> dict[str, list[dg.DagsterRun]]:
    """Give the runs of each request that waits for any."""
    found: dict[str, list[dg.DagsterRun]] = {}
    for run in runs:
        for name, value in run.tags.items():
            if name.startswith(REQUEST_TAG):
                found.setdefault(value, []).append(run)
    return found


def ending_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Say in one line how a run ended that did not succeed."""
    if run.status is dg.DagsterRunStatus.CANCELED:
        return f"run {run.run_id} was cancelled"
    records = instance.get_records_for_run(
        run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}, limit=20
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    told = next((each for each in map(_error, events) if each), "it ended without a word")
    return f"run {run.run_id} failed: {told[:_LONGEST_ERROR]}"


def _error(event: dg.DagsterEvent | None) -> str:
    if event is None:
        return ""
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return " ".join(_CLASS_NAME.sub("", error.message).split()) if error else " ".join((event.message or "").split())


def outcome(runs: Sequence[dg.DagsterRun], endings: Mapping[str, str]) -> str:
    """Say in one line that runs are over and how; `endings` are those of runs that failed, by run id."""
    failed = [endings[run.run_id] for run in runs if run.run_id in endings]
    if failed:
        return "; ".join(failed[:3]) + (f"; and {len(failed) - 3} more" if len(failed) > 3 else "")
    return f"{'runs' if len(runs) > 1 else 'run'} {', '.join(run.run_id for run in runs[:3])} ended without it"
