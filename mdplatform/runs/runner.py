"""The runner: executes planned runs in this process, on the instance of the platform's home.

A run whose process was killed is found by the next one and marked as failed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import dagster as dg

from mdplatform.assets.partitions import SERIES, SYMBOL
from mdplatform.assets.plan import FORMS, Group, Planned, fitting, plan
from mdplatform.definitions import defs
from mdplatform.errors import MaterializationFailed, NoData, RedisUnavailable, UnknownAsset
from mdplatform.home import prepare_home
from mdplatform.lake.lock import locked
from mdplatform.sensors.left_behind import PROCESS_TAG, fail_left_behind, this_process
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, connect

_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_PERIOD = re.compile(r"(?:^|/)(\d{4}-\d{2})(-\d{2})?$")
_CLASS_NAME = re.compile(r"^mdplatform\.errors\.\w+: ")

_MOST_TOLD = 3
_INTERRUPTED = dg.DagsterExecutionInterruptedError.__name__

Progress = Callable[[str, int, int], None]
"""Called with what was done last, how much is done, and how much there is to do."""


def silent(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Materialized:
    """One partition that a run materialized, and the metadata it left."""

    asset: str
    partition: str
    run_id: str
    metadata: dict[str, Any]


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open Dagster's instance of the home, one process at a time, for the first one makes its tables.

    Runs of processes that were killed are marked as failed.
    """
    folder = prepare_home(settings)
    with locked(folder / "opening.lock"):
        instance = dg.DagsterInstance.from_config(str(folder))
        fail_left_behind(instance)
    return instance


class Runs:
    """Runs assets on the instance of the platform's home."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.first_month = settings.first_month
        self._instance = open_instance(settings)
        self._server = ExitStack()
        with suppress(RedisUnavailable, *REDIS_FAILURES):  # each run says for itself what it could not publish
            self._server.enter_context(connect(settings)).ping()
        self._definitions = defs() if callable(defs) else defs
        self._job = self._definitions.resolve_implicit_global_asset_job_def()

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.close()
        self._instance.dispose()

    def assets(self) -> list[str]:
        """Give the names of the assets."""
        return sorted(key.to_user_string() for key in self._definitions.resolve_all_asset_keys())

    def check_assets(self, names: Iterable[str]) -> list[str]:
        """Give `names` back, upstream first. Raises `UnknownAsset`."""
        known = self.assets()
        for name in names:
            if name not in known:
                raise UnknownAsset(name, known)
        graph = self._definitions.resolve_asset_graph()
        order = [key.to_user_string() for level in graph.toposorted_asset_keys_by_level for key in level]
        return sorted(set(names), key=order.index)

    def register(self, symbols: Sequence[str], series: Sequence[str] = ()) -> None:
        """Add symbols and series to the partitions; those that are there stay as they are."""
        for definition, names in ((SYMBOL, symbols), (SERIES, series)):
            if names:
                self._instance.add_dynamic_partitions(definition.name or "", sorted(names))

    def symbols(self) -> list[str]:
        """Give the symbols that are registered."""
        return list(self._instance.get_dynamic_partitions(SYMBOL.name or ""))

    def series(self) -> list[str]:
        """Give the series that are registered."""
        return list(self._instance.get_dynamic_partitions(SERIES.name or ""))

    def definition_of(self, asset: str) -> dg.PartitionsDefinition[str]:
        """Give by what an asset is partitioned."""
        definition = self._definitions.resolve_asset_graph().get(dg.AssetKey(asset)).partitions_def
        assert definition is not None, f"{asset} has no partitions"
        return definition

    def upstream(self, asset: str) -> set[str]:
        """Give all assets that `asset` follows from, and itself."""
        graph = self._definitions.resolve_asset_graph()
        found, ahead = set[dg.AssetKey](), [dg.AssetKey(asset)]
        while ahead:
            key = ahead.pop()
            if key not in found:
                found.add(key)
                ahead += graph.get(key).parent_keys
        return {key.to_user_string() for key in found}

    def materialize(
        self,
        assets: Sequence[str],
        of: Mapping[str, Iterable[str]] | Iterable[str],
        *,
        fetch: bool = False,
        progress: Progress = silent,
    ) -> list[Materialized]:
        """Materialize `assets` for the partitions `of`: keys of the lake (`BTCUSDT/2025-01`, `BTCUSDT/2025-01-31`,
        `2025-01`, `CPIAUCSL`), or each symbol's months or days.

        A run that fails does not keep the others from being made. Raises `MaterializationFailed` at the end if any did,
        and `NoData`, before anything is run, where no key is one of an asset's.
        """
        ordered = self.check_assets(assets)
        given = (
            [f"{symbol}/{each}" for symbol, several in of.items() for each in several]
            if isinstance(of, Mapping)
            else of
        )
        keys = list(dict.fromkeys(given))
        return self.materialize_each(dict.fromkeys(ordered, keys), fetch=fetch, progress=progress)

    def materialize_each(
        self, keys_of: Mapping[str, Sequence[str]], *, fetch: bool = False, progress: Progress = silent
    ) -> list[Materialized]:
        """Materialize each asset for keys of its own, none where there are none; errors as of `materialize`."""
        self.check_assets(keys_of)
        fitted: dict[str, list[str]] = {}
        for name, keys in keys_of.items():
            _check_periods(keys, self._settings)
            fitted[name] = fitting(self.definition_of(name), keys)
            if keys and not fitted[name]:
                raise NoData(
                    f"None of those partitions is one of {name}",
                    value=keys[0],
                    remedy=f"Its partitions are such as {FORMS[self.definition_of(name)]}",
                )
        groups = self._groups({name: keys for name, keys in fitted.items() if keys})
        self.register([], sorted({key for group in groups if group.definition == SERIES for key in group.keys}))
        planned = plan(groups, self.series())
        total, finished = sum(run.partitions for run in planned), 0
        done: list[Materialized] = []
        failed: list[tuple[Planned, MaterializationFailed]] = []
        left_out = 0
        for run in planned:
            progress(run.what, finished, total)
            if any(self._follows(run, before) for before, _ in failed):
                left_out += 1
                continue
            try:
                done += self._run(run.assets, run.first, run.last, fetch)
            except MaterializationFailed as failure:
                if _INTERRUPTED in failure.cause:
                    raise
                failed.append((run, failure))
            finished += run.partitions
            progress(run.what, finished, total)
        if failed:
            raise _summary(failed, len(planned), left_out, len(done))
        return done

    def _follows(self, run: Planned, failed: Planned) -> bool:
        """Tell whether a run might be of values that a failed one should have made: what it left may be wrong."""
        symbols = {run.first.partition("|")[2], failed.first.partition("|")[2]}
        apart = len(symbols) == 2 and "" not in symbols
        return not apart and any((self.upstream(asset) - {asset}) & set(failed.assets) for asset in run.assets)

    def _groups(self, keys_of: Mapping[str, list[str]]) -> list[Group]:
        """Put assets of the same partitions together as far as what they follow from allows, upstream first."""
        groups: list[Group] = []
        left = self.check_assets(keys_of)
        upstream = {name: self.upstream(name) - {name} for name in left}
        while left:
            definition, keys, together = self.definition_of(left[0]), keys_of[left[0]], list[str]()
            for name in left:
                alike = self.definition_of(name) == definition and keys_of[name] == keys
                if alike and upstream[name] & set(left) <= set(together):
                    together.append(name)
            groups.append(Group(definition, tuple(together), keys))
            left = [name for name in left if name not in together]
        return groups

    def _run(self, assets: Sequence[str], first: str, last: str, fetch: bool) -> list[Materialized]:
        config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if "bars" in assets:
            config["ops"] = {"bars": {"config": {"fetch": fetch}}}
        result = self._job.execute_in_process(
            run_config=config,
            instance=self._instance,
            asset_selection=[dg.AssetKey(name) for name in assets],
            tags={_RANGE_START: first, _RANGE_END: last, PROCESS_TAG: this_process()},
            raise_on_error=False,
        )
        if not result.success:
            raise _failure(result)
        done = [
            Materialized(
                asset=event.asset_key.to_user_string() if event.asset_key else "",
                partition=event.partition or "",
                run_id=result.run_id,
                metadata={name: value.value for name, value in event.materialization.metadata.items()},
            )
            for event in result.get_asset_materialization_events()
        ]
        return sorted(done, key=lambda each: (assets.index(each.asset), each.partition))


def _check_periods(keys: Iterable[str], settings: Settings) -> None:
    today = datetime.now(UTC)
    for key in keys:
        said = _PERIOD.search(key)
        if said is None:
            continue
        running = f"{today:%Y-%m-%d}" if said[2] else f"{today:%Y-%m}"
        if not settings.first_month <= said[0].lstrip("/") <= running:
            raise NoData(
                f"A {'day' if said[2] else 'month'} that the platform does not keep",
                value=said[0].lstrip("/"),
                remedy=f"Allowed: {settings.first_month} (MDPLATFORM_FIRST_MONTH) to {running}, the running "
                f"{'day' if said[2] else 'month'}",
            )


def _summary(
    failed: Sequence[tuple[Planned, MaterializationFailed]], runs: int, left_out: int, done: int
) -> MaterializationFailed:
    first = failed[0][1]
    if runs == 1:
        return first
    told = "; ".join(f"{run.what} {run.first} … {run.last}: {failure.cause}" for run, failure in failed[:_MOST_TOLD])
    more = f"; and {len(failed) - _MOST_TOLD} more" if len(failed) > _MOST_TOLD else ""
    following = f", {left_out} that follow from them were left out" if left_out else ""
    return MaterializationFailed(
        f"{len(failed)} of {runs} runs failed{following}, the others made {done} partitions. {told}{more}",
        remedy=first.remedy,
    )


def _failure(result: dg.ExecuteInProcessResult) -> MaterializationFailed:
    failures = [event for event in result.all_events if event.is_failure and event.is_step_event]
    error = failures[0].event_specific_data.error if failures else None  # type: ignore[union-attr]
    while error is not None and error.cause is not None:
        error = error.cause
    said = " ".join(_CLASS_NAME.sub("", error.message).split()) if error else "the run ended in failure"
    return MaterializationFailed(
        f"Run {result.run_id[:8]} failed: {said}", remedy="`mdplatform ui` shows the run with its log"
    )
