"""The sensor `lineage`: what workers computed and published becomes materializations of the assets that it belongs to.

A tick reads the workers' outbox from its cursor, keeps the last entry of each asset and partition with how many there
were, for whom and how long they took, and reports those: an event costs Dagster 10–30 ms, so there are at most
`MOST_EVENTS_A_TICK`, and what is left stays for the next tick. Events are written before the cursor: a tick that
dies in between reports them twice, with the same numbers.

They carry no data version, and our automation goes by the lake's content: nothing downstream is made again for them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
import msgspec

from mdplatform.assets.partitions import (
    DAY_BY_SYMBOL,
    FIRST_MONTH,
    MONTH,
    MONTH_BY_SYMBOL,
    SERIES,
    SYMBOL,
    partition_key,
)
from mdplatform.assets.plan import fitting
from mdplatform.market.time import from_us
from mdplatform.messaging.transport import Entry
from mdplatform.requests import wanted
from mdplatform.requests.wanted import Made
from mdplatform.resources import DeskResource

MOST_EVENTS_A_TICK = 40
MOST_ENTRIES_A_TICK = 5_000
_MOST_NAMES = 20
_SAID = "Computed by request workers and published to Redis. The file in the lake is as the last run left it."
PARTITIONED: dict[str, dg.PartitionsDefinition[str]] = {
    "technical_indicators": MONTH_BY_SYMBOL,
    "composite_indicators": MONTH_BY_SYMBOL,
    "volume_profile": DAY_BY_SYMBOL,
    "order_flow": DAY_BY_SYMBOL,
    "correlation_matrix": MONTH,
    "sentiment_features": MONTH,
    "macro_features": SERIES,
}
"""The assets that workers make values of, and by what they are partitioned."""


@dataclass
class Coalesced:
    """What workers made of one partition since the last tick: the last entry, and a summary of all."""

    last: Made
    count: int = 0
    slowest_ms: float = 0.0
    strategies: Counter[str] = field(default_factory=Counter)
    workers: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)

    def add(self, made: Made) -> None:
        """Count one more, which came later."""
        self.last = made
        self.count += 1
        self.slowest_ms = max(self.slowest_ms, made.took_ms)
        self.strategies[made.strategy_id] += 1
        self.workers[made.worker] += 1
        self.features[f"{made.feature}@{made.timeframe}" if made.timeframe else made.feature] += 1


@dataclass
class Drained:
    """What a tick reports: by asset and partition (of the lake), up to `place`; and what it leaves out, by reason."""

    place: str
    partitions: dict[tuple[str, str], Coalesced] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


@dg.sensor(
    name="lineage",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records what request workers computed as materializations of the assets that it belongs to.",
)
def lineage(context: dg.SensorEvaluationContext, desk: DeskResource) -> dg.SensorResult | dg.SkipReason:
    """Read the outbox since the cursor, and report what was made."""
    after = context.cursor or "0"
    if context.cursor:
        desk.desk.trim(lineage=after)
    entries = desk.desk.lineage(after, MOST_ENTRIES_A_TICK)
    if not entries:
        return dg.SkipReason("Workers computed nothing new.")
    drained = drain(entries, MOST_EVENTS_A_TICK)
    for reason, count in drained.left_out.items():
        context.log.warning(f"{count} entries of the outbox are left out: {reason}")
    new = _new_names(context.instance, drained)
    return dg.SensorResult(
        skip_reason=f"{sum(each.count for each in drained.partitions.values())} computations of workers recorded in "
        f"{len(drained.partitions)} partitions.",
        cursor=drained.place,
        asset_events=[_event(asset, key, each) for (asset, key), each in drained.partitions.items()],
        dynamic_partitions_requests=[definition.build_add_request(names) for definition, names in new if names],
    )


def drain(entries: Sequence[Entry], most: int) -> Drained:
    """Coalesce entries, as many as come to at most so many partitions."""
    drained = Drained(entries[0].place)
    for entry in entries:
        try:
            made = wanted.decode_made(entry.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as refused:
            drained.left_out[f"no entry of lineage ({refused})"] += 1
        else:
            place = (made.asset, made.partition)
            if (reason := _reason_against(*place)) is not None:
                drained.left_out[reason] += 1
            elif place in drained.partitions or len(drained.partitions) < most:
                drained.partitions.setdefault(place, Coalesced(made)).add(made)
            else:
                break
        drained.place = entry.place
    return drained


def _reason_against(asset: str, key: str) -> str | None:
    definition = PARTITIONED.get(asset)
    if definition is None:
        return f"workers make nothing of the asset {asset!r}"
    if fitting(definition, [key]) != [key]:
        return f"{asset} has no partitions such as {key!r}"
    period = key.rpartition("/")[2]
    if definition != SERIES and not FIRST_MONTH <= period[:7] <= f"{datetime.now(UTC):%Y-%m}":
        return f"{asset} has no partitions before {FIRST_MONTH} or after the running month"
    return None


def _new_names(
    instance: dg.DagsterInstance, drained: Drained
) -> list[tuple[dg.DynamicPartitionsDefinition, list[str]]]:
    """Give the symbols and series that are no partitions yet."""
    keys: dict[dg.DynamicPartitionsDefinition, set[str]] = {SYMBOL: set(), SERIES: set()}
    for asset, key in drained.partitions:
        if PARTITIONED[asset] == SERIES:
            keys[SERIES].add(key)
        elif PARTITIONED[asset] != MONTH:
            keys[SYMBOL].add(key.partition("/")[0])
    return [
        (definition, sorted(names - set(instance.get_dynamic_partitions(definition.name or "") if names else ())))
        for definition, names in keys.items()
    ]


def _event(asset: str, key: str, each: Coalesced) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=asset,
        partition=partition_key(key),
        description=_SAID,
        metadata={
            "made_by": f"worker {each.last.worker}",
            "computations": each.count,
            "slowest_ms": round(each.slowest_ms, 3),
            "features": dg.MetadataValue.json(_most(each.features)),
            "strategies": dg.MetadataValue.json(_most(each.strategies)),
            "workers": dg.MetadataValue.json(_most(each.workers)),
            "last_request": each.last.request_id,
            "last_version": each.last.version,
            "last_rows": each.last.rows,
            "last_at": dg.MetadataValue.timestamp(from_us(each.last.at)),
        },
    )


def _most(counted: Counter[str]) -> dict[str, int]:
    """Give the names that come most often, and of the others how often they come."""
    shown = dict(counted.most_common(_MOST_NAMES))
    others = counted.total() - sum(shown.values())
    return shown | ({"others": others} if others else {})
