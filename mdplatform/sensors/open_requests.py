"""The sweep `open_requests`: no request waits for a run that is over, or for one that was never asked for.

It goes over what is open, with one query for all runs, and

- settles as failed what is past its deadline: its run hangs, or no worker lives to say so;
- gives back to the workers, with how they ended, requests whose runs are all over. A worker then answers with what
  there is: all of it, or what can be had without the part that a failed run should have brought, or why there is none.
  Settling here instead would throw away the parts that can be answered;
- gives back, without a word, requests of which no run is known though the sensor has read them, or only such as were
  left behind by a process that was killed: they are wanted anew;
- tells who waits that a run has started.

Nothing is given back whose entry is still in the stream: the tick that read it may be making runs for the rest of it.
It depends on what is, not on what happened: a tick that is lost, or comes twice, changes nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec

from mdplatform.market.time import from_us, to_us
from mdplatform.messaging.transport import Desk, Record
from mdplatform.requests import wire
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.resources import DeskResource
from mdplatform.sensors.request_runs import MOST_RUNS, PATH, ending_of, outcome, runs_by_request, was_left_behind
from mdplatform.worker.endings import expired

MOST_OPEN = 10_000
MOST_FAILED_A_TICK = 50
_GRACE_SECONDS = 1.0  # workers and askers look at deadlines too, and come first where they live
_CLOCKS_APART = timedelta(seconds=60)


class Swept(msgspec.Struct):
    """The cursor: runs that are known to have started, and to be over."""

    started: list[str] = []
    over: list[str] = []


@dg.sensor(
    name="open_requests",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends what runs left open: requests whose runs failed, were cancelled, hang, or are over.",
)
def open_requests(context: dg.SensorEvaluationContext, desk: DeskResource) -> dg.SensorResult:
    """Look once; this starts no run."""
    instance, now = context.instance, datetime.now(UTC)
    before = msgspec.json.decode(context.cursor, type=Swept) if context.cursor else Swept()
    every = desk.desk.open(MOST_OPEN)  # the order matters: a run is there before its entry is dropped from the stream
    unread = desk.desk.wanted("0", MOST_OPEN)
    runs = _runs_since(instance, every)
    of_request = runs_by_request(run for run in runs if not was_left_behind(run))
    behind = runs_by_request(run for run in runs if was_left_behind(run))
    late = [each for each in every if each.deadline + _GRACE_SECONDS * 1e6 < to_us(now)]
    for each in late:
        body = _overdue(each, of_request.get(each.id, ()))
        desk.desk.settle(each.id, wire.encode_reply(msgspec.structs.replace(body, answered_at=to_us(now))))
    ids_late = {each.id for each in late}
    parked = [each for each in every if each.stage == "parked" and each.id not in ids_late]
    ids_unread = {entry.id for entry in unread}
    settled = [each for each in parked if each.id not in ids_unread] if len(unread) < MOST_OPEN else []
    released = _release_over(instance, desk.desk, settled, of_request, before)
    news = {id for id, left in behind.items() if not {run.run_id for run in left} <= {*before.over}}
    orphans = sorted(
        each.id for each in settled if each.id not in of_request and (not each.standing or each.id in news)
    )
    if orphans:
        desk.desk.release(orphans, "")
    started = _tell_started(desk.desk, parked, of_request, before, now)
    waiting = {run.run_id: run for each in every for of in (of_request, behind) for run in of.get(each.id, ())}
    cursor = Swept(started=started, over=sorted(id for id, run in waiting.items() if run.is_finished))
    told = {"past their deadline": len(late), "with runs that are over": released, "wanted anew": len(orphans)}
    counts = ", ".join(f"{count} {what}" for what, count in told.items() if count)
    return dg.SensorResult(
        skip_reason=f"{len(every)} requests are open{': ' + counts if counts else ''}.",
        cursor=msgspec.json.encode(cursor).decode(),
    )


def _runs_since(instance: dg.DagsterInstance, records: Sequence[Record]) -> Sequence[dg.DagsterRun]:
    """Give the runs for requests that were changed since the first of these was sent: tagging a run changes it."""
    if not records:
        return ()
    since = from_us(min(each.sent_at for each in records)) - _CLOCKS_APART
    return instance.get_runs(dg.RunsFilter(tags=PATH, updated_after=since), limit=MOST_RUNS)


def _release_over(
    instance: dg.DagsterInstance,
    desk: Desk,
    parked: Iterable[Record],
    of_request: dict[str, list[dg.DagsterRun]],
    before: Swept,
) -> int:
    """Give back those whose runs are all over; a standing request, which goes on being parked, only once."""
    seen = set(before.over)
    done = [
        (each.id, runs)
        for each in parked
        if (runs := of_request.get(each.id))
        and all(run.is_finished for run in runs)
        and not (each.standing and seen.issuperset(run.run_id for run in runs))
    ]
    endings: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    for id, runs in done:
        failed = [run for run in runs if not run.is_success]
        unknown = [run for run in failed if run.run_id not in endings]
        if len(endings) + len(unknown) > MOST_FAILED_A_TICK and endings:
            continue  # the next tick comes to it
        endings.update((run.run_id, ending_of(instance, run)) for run in unknown)
        notes.setdefault(outcome(runs, endings), []).append(id)
    for note, ids in notes.items():
        desk.release(ids, note)
    return sum(map(len, notes.values()))


def _tell_started(
    desk: Desk,
    parked: Iterable[Record],
    of_request: dict[str, list[dg.DagsterRun]],
    before: Swept,
    now: datetime,
) -> list[str]:
    """Tell who waits for a run that it has started; give the runs of which that is known now."""
    seen, started = set(before.started), set[str]()
    for each in parked:
        for run in of_request.get(each.id, ()):
            if run.status is dg.DagsterRunStatus.STARTED:
                started.add(run.run_id)
                if run.run_id not in seen:
                    progress = Progress(
                        request_id=each.id, stage="run_started", text=run.job_name, run_id=run.run_id, at=to_us(now)
                    )
                    desk.tell(each.id, wire.encode_reply(progress))
    return sorted(started)


def _overdue(record: Record, runs: Sequence[dg.DagsterRun]) -> AnswerBody:
    body = expired(record)
    going = [run.run_id for run in runs if not run.is_finished]
    if body.problem is None or not going:
        return body
    cause = f"The deadline has passed while run {going[0]} was under way"
    remedy = "Ask again with a later deadline: what the run brings is there then; `mdplatform ui` shows it"
    return msgspec.structs.replace(body, problem=msgspec.structs.replace(body.problem, cause=cause, remedy=remedy))
