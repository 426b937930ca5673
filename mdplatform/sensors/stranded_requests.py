"""Stranded requests: no worker lives that could take them, so a run stands in as one.

The stand-in is the request worker itself, inside a Dagster run: it answers what it can, and what it cannot goes the way
of all requests, through `data_requests`. So there is one way to an answer, and one place that sees to it that there is
just one. It ends when another worker lives, when nothing is left to do, or after `LONGEST_SECONDS`.
"""

import asyncio
import time
from datetime import UTC, datetime

import dagster as dg

from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.registry import answerer
from mdplatform.messaging.registry import desk as open_desk
from mdplatform.resources import DeskResource, SettingsResource
from mdplatform.sensors.request_runs import MAX_RUNTIME_TAG, UNFINISHED, request_tag
from mdplatform.settings import Settings
from mdplatform.worker.handler import StrategyDataRequestHandler

IDLE_SECONDS = 5.0
"""For how long nobody takes a request that is stranded."""
LONGEST_SECONDS = 300.0
_NOTHING_LEFT_SECONDS = 3.0
_LOOK_SECONDS = 0.25
_MOST_TAGGED = 200
_MOST_OPEN = 10_000
_PATH = {"mdplatform/path": "stand_in"}


@dg.op
def answer_stranded(context: dg.OpExecutionContext, settings: SettingsResource) -> None:
    """Work as a request worker as long as there is something to answer and no other worker."""
    name = f"run-{context.run_id[:8]}"
    answered = asyncio.run(_stand_in(settings.settings, name))
    context.add_output_metadata({"answered": dg.MetadataValue.json(answered)})


@dg.job(
    name="answer_stranded_requests",
    tags={**_PATH, MAX_RUNTIME_TAG: str(round(2 * LONGEST_SECONDS))},
    description="Stands in for request workers while none lives.",
)
def answer_stranded_requests() -> None:
    """Do it once."""
    answer_stranded()


@dg.sensor(
    name="stranded_requests",
    job=answer_stranded_requests,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has a run stand in as a worker for requests that no worker takes.",
)
def stranded_requests(context: dg.SensorEvaluationContext, desk: DeskResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for a stand-in, if requests lie in the queues, no worker lives, and none stands in already."""
    stranded = desk.desk.stranded(IDLE_SECONDS, _MOST_TAGGED)
    if not stranded:
        return dg.SkipReason("Every request has been taken by a worker.")
    if workers := desk.desk.workers():
        return dg.SkipReason(f"Requests wait, but {len(workers)} workers live and will come to them.")
    if context.instance.get_runs(dg.RunsFilter(tags=_PATH, statuses=UNFINISHED), limit=1):
        return dg.SkipReason("A run stands in already.")
    tags = {request_tag(each.id): each.id for each in stranded}
    minute = f"{datetime.now(UTC):%Y-%m-%dT%H:%M}"
    job = answer_stranded_requests.name
    return dg.RunRequest(f"{stranded[0].id} @{minute}", job_name=job, tags={**tags, **_PATH, "dagster/priority": "40"})


async def _stand_in(settings: Settings, name: str) -> dict[str, object]:
    began = busy_at = time.monotonic()
    side = answerer(settings, name)
    try:
        with open_desk(settings) as desk:
            async with StrategyDataRequestHandler(settings, side, worker=name) as handler:
                while time.monotonic() - began < LONGEST_SECONDS:
                    await asyncio.sleep(_LOOK_SECONDS)
                    if await asyncio.to_thread(_is_work_left, desk):
                        busy_at = time.monotonic()
                    elif time.monotonic() - busy_at > _NOTHING_LEFT_SECONDS:
                        break
                    if any(other != name for other in await asyncio.to_thread(desk.workers)):
                        break
            return dict(handler.counts.to_dict())
    finally:
        await side.close()


def _is_work_left(desk: RedisDesk) -> bool:
    return any(not each.standing or each.stage != "parked" for each in desk.open(_MOST_OPEN))
