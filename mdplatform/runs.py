"""Runs: materializing assets in this process, as Dagster runs on the platform's own instance.

Months of one symbol go into one run, at most a year at a time, so that progress shows. A run whose process was killed
is found by the next one and marked as failed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import dagster as dg

from mdplatform.assets.partitions import MONTH_BY_SYMBOL, SYMBOL, Cell
from mdplatform.definitions import defs
from mdplatform.errors import MaterializationFailed, NoData, PlatformError, RedisUnavailable, UnknownAsset
from mdplatform.home import prepare_home
from mdplatform.lake.lock import locked
from mdplatform.market.time import consecutive
from mdplatform.sensors.left_behind import PROCESS_TAG, fail_left_behind, this_process
from mdplatform.serving.connection import REDIS_FAILURES, connect
from mdplatform.settings import Settings

_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_MOST_MONTHS = 12
_CLASS_NAME = re.compile(r"^mdplatform\.errors\.\w+: ")

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

    def register(self, symbols: Sequence[str]) -> None:
        """Add symbols to the partitions; those that are there stay as they are."""
        self._instance.add_dynamic_partitions(SYMBOL.name or "", sorted(symbols))

    def symbols(self) -> list[str]:
        """Give the symbols that are registered."""
        return list(self._instance.get_dynamic_partitions(SYMBOL.name or ""))

    def materialize(
        self,
        assets: Sequence[str],
        months_of: dict[str, list[str]],
        *,
        fetch: bool = False,
        progress: Progress = silent,
    ) -> list[Materialized]:
        """Materialize `assets` for each symbol's months. Raises `MaterializationFailed` at the first failed run."""
        ordered = self.check_assets(assets)
        _check_months({month for months in months_of.values() for month in months}, self._settings)
        graph = self._definitions.resolve_asset_graph()
        by_symbol = [name for name in ordered if graph.get(dg.AssetKey(name)).partitions_def == MONTH_BY_SYMBOL]
        by_month = [name for name in ordered if name not in by_symbol]
        work: list[tuple[str, list[str], str, str, int]] = []
        for symbol, months in months_of.items() if by_symbol else ():
            for run in consecutive(months, _MOST_MONTHS):
                first, last = (str(Cell(month, symbol).key) for month in (run[0], run[-1]))
                work.append((f"{', '.join(by_symbol)} {symbol}", by_symbol, first, last, len(run) * len(by_symbol)))
        every_month = sorted({month for months in months_of.values() for month in months})
        for run in consecutive(every_month, _MOST_MONTHS) if by_month else ():
            work.append((", ".join(by_month), by_month, run[0], run[-1], len(run) * len(by_month)))
        total, finished = sum(partitions for *_, partitions in work), 0
        done: list[Materialized] = []
        for what, of_run, first, last, partitions in work:
            progress(what, finished, total)
            done += self._run(of_run, first, last, fetch)
            finished += partitions
            progress(what, finished, total)
        return done

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
        return [
            Materialized(
                asset=event.asset_key.to_user_string() if event.asset_key else "",
                partition=event.partition or "",
                run_id=result.run_id,
                metadata={name: value.value for name, value in event.materialization.metadata.items()},
            )
            for event in result.get_asset_materialization_events()
        ]


def _check_months(months: set[str], settings: Settings) -> None:
    running = f"{datetime.now(UTC):%Y-%m}"
    for month in sorted(months):
        if not settings.first_month <= month <= running:
            raise NoData(
                "A month that the platform does not keep",
                value=month,
                remedy=f"Allowed: {settings.first_month} (MDPLATFORM_FIRST_MONTH) to {running}, the running month",
            )


def _failure(result: dg.ExecuteInProcessResult) -> PlatformError:
    failures = [event for event in result.all_events if event.is_failure and event.is_step_event]
    error = failures[0].event_specific_data.error if failures else None  # type: ignore[union-attr]
    while error is not None and error.cause is not None:
        error = error.cause
    said = " ".join(_CLASS_NAME.sub("", error.message).split()) if error else "the run ended in failure"
    return MaterializationFailed(
        f"Run {result.run_id[:8]} failed: {said}", remedy="`mdplatform ui` shows the run with its log"
    )
