"""The sensor `data_requests`: what workers cannot answer becomes runs.

A tick

1. drops from the stream what earlier ticks have read, whose runs Dagster has stored by now;
2. reads what came since, by `XRANGE` from its cursor. If there is nothing it waits a little, since ticks begin five
   seconds apart;
3. coalesces it (`request_work`) with what runs were asked for already, in at most `MOST_RUNS_A_TICK` runs. What is left
   stays for the next tick;
4. adds symbols and series that are new to the partitions, and asks for the runs. Dagster stores them and the cursor in
   one step: a tick that dies before is repeated, and one that dies after is resumed with the same runs.

Whatever a tick does besides may be done twice without harm: tags, progress, and giving back requests that no run can
serve. A run is not asked for again within `FRESH_SECONDS` of its end: who wants the same joins it.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec

from mdplatform.assets.partitions import SERIES, SYMBOL
from mdplatform.assets.trades import source_of_trades
from mdplatform.lake import Lake
from mdplatform.market.time import to_us
from mdplatform.messaging.transport import Desk, Entry
from mdplatform.requests import wanted, wire
from mdplatform.requests.answer import Progress
from mdplatform.requests.wanted import RunWanted
from mdplatform.resources import DeskResource, LakeResource, SettingsResource
from mdplatform.sensors.request_runs import JOBS, asked_partitions, current_runs, join, run_request
from mdplatform.sensors.request_work import Demand, coalesce, fitting_prefix
from mdplatform.settings import Settings

MOST_RUNS_A_TICK = 50
MOST_ENTRIES_A_TICK = 2_000
FRESH_SECONDS = 60
_DIMENSIONS = {"symbol": SYMBOL, "series": SERIES}
_LOOK_SECONDS = 0.05


@dg.sensor(
    name="data_requests",
    jobs=list(JOBS.values()),
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Turns what strategies ask for, and nobody has, into runs: coalesced, most urgent first.",
)
def data_requests(
    context: dg.SensorEvaluationContext, settings: SettingsResource, lake: LakeResource, desk: DeskResource
) -> dg.SensorResult | dg.SkipReason:
    """Read what is wanted since the cursor, and ask for runs."""
    after = context.cursor or "0"
    if context.cursor:
        desk.desk.trim(wanted=after)
    entries = _gathered(desk.desk, after, desk.wait_seconds)
    if not entries:
        return dg.SkipReason("No request waits for a run.")
    now = datetime.now(UTC)
    instance = context.instance
    runs = {run.run_id: run for run in current_runs(instance, now - timedelta(seconds=FRESH_SECONDS))}
    asked = asked_partitions(runs.values())
    registered = {
        name: list(instance.get_dynamic_partitions(definition.name or "")) for name, definition in _DIMENSIONS.items()
    }
    reasons = Reasons(lake.lake, settings.settings)
    read = [_read(entry, to_us(now), context) for entry in entries]

    def demand_of(count: int) -> Demand:
        return coalesce([each for each in read[:count] if each], asked, registered, reasons.against)

    count = fitting_prefix(len(entries), MOST_RUNS_A_TICK, lambda first: len(demand_of(first).work))
    demand = demand_of(count)
    for run_id, joining in demand.joins.items():
        join(instance, runs[run_id], joining.values())
    _tell(desk.desk, demand, now)
    place = entries[count - 1].place
    return dg.SensorResult(
        run_requests=[run_request(work, entries[0].place, settings.settings.data_source) for work in demand.work],
        dynamic_partitions_requests=[
            _DIMENSIONS[name].build_add_request(names) for name, names in demand.names.items() if names
        ],
        cursor=place,
    )


class Reasons:
    """Why a run would not bring a partition: nobody is known who could be asked for it, and nothing waits."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._lake = lake
        self._settings = settings
        self._members = lake.universe.members()

    def against(self, asset: str, key: str) -> str | None:
        """Give the reason, None if a run may bring the partition."""
        if asset == "macro_series":
            if self._settings.fred_api_key or self._waits("macro", key):
                return None
            return f"nobody can be asked for the series {key}; set MDPLATFORM_FRED_API_KEY, or ingest it from a file"
        symbol, _, period = key.partition("/")
        own = member.source if (member := self._members.get(symbol)) is not None else None
        if asset == "trades":
            known = source_of_trades([own, self._settings.data_source]) or self._waits("trades", key)
        else:
            known = own or self._settings.data_source or bool(self._lake.inbox.pending(symbol, period))
        if known:
            return None
        return f"no source is known for {asset} of {symbol}; set MDPLATFORM_DATA_SOURCE, or ingest them"

    def _waits(self, dataset: str, key: str) -> bool:
        return key in self._lake.table(dataset).waiting()


def _gathered(desk: Desk, after: str, wait_seconds: float) -> list[Entry]:
    """Read what there is, and wait for the first; once there is some, wait until no more comes, for others join it."""
    end = time.monotonic() + wait_seconds
    entries: list[Entry] = []
    while True:
        before, entries = len(entries), desk.wanted(after, MOST_ENTRIES_A_TICK)
        settled = len(entries) == before if entries else False
        if settled or len(entries) == MOST_ENTRIES_A_TICK or time.monotonic() >= end:
            return entries
        time.sleep(_LOOK_SECONDS)


def _read(entry: Entry, now: int, context: dg.SensorEvaluationContext) -> RunWanted | None:
    """Read an entry; None if it is none, or nobody waits any more."""
    try:
        each = wanted.decode_wanted(entry.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as refused:
        context.log.warning(f"Entry {entry.place} of what is wanted cannot be read, and is left out: {refused}")
        return None
    return each if each.deadline > now else None


def _tell(desk: Desk, demand: Demand, now: datetime) -> None:
    """Tell who waits that a run was asked for; give back those for whom there is none, with the reason."""
    told: dict[str, Progress] = {}
    for work in demand.work:
        text = f"{work.asset} {_shown(work.keys)}"
        for each in work.requests:
            told[each.request_id] = _progress(each, text, "", now)
    for run_id, joining in demand.joins.items():
        for each in joining.values():
            told.setdefault(each.request_id, _progress(each, "somebody asked for the same before", run_id, now))
    for progress in told.values():
        desk.tell(progress.request_id, wire.encode_reply(progress))
    for request_id, reason in demand.refused.items():
        if request_id not in told:
            desk.release([request_id], reason)


def _progress(each: RunWanted, text: str, run_id: str, now: datetime) -> Progress:
    return Progress(request_id=each.request_id, stage="run_requested", text=text, run_id=run_id, at=to_us(now))


def _shown(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} … {keys[-1]}"
