"""What a caller asks of an ingest, and what it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mdplatform.market.time import day_range, month_range
from mdplatform.market.timeframe import Timeframe


@dataclass(frozen=True)
class Wanted:
    """What a caller says of the targets: what they are taken as, what they don't say themselves, and what is wanted.

    `taken_as` is `bars` or one of the kinds of `sources.table_registry`; remotes of one kind say theirs. `first_day`
    and `last_day` (`YYYY-MM-DD`, both included) are for tables, which take the months where there are no days;
    `columns` maps our names to a file's. `observed` and `lag_days` are for macro values without vintages, `provider`
    and `scorer` for sentiment.
    """

    symbol: str | None = None
    timeframe: Timeframe | None = None
    first_month: str | None = None
    last_month: str | None = None
    taken_as: str | None = None
    first_day: str | None = None
    last_day: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    provider: str | None = None
    observed: datetime | None = None
    lag_days: int | None = None
    scorer: str | None = None

    def span(self) -> tuple[int | None, int | None]:
        """Give the instants (µs, end exclusive) that days, or else months, bound; None where there is no bound."""
        start = month_range(self.first_month)[0] if self.first_month else None
        end = month_range(self.last_month)[1] if self.last_month else None
        if self.first_day:
            start = day_range(self.first_day)[0]
        if self.last_day:
            end = day_range(self.last_day)[1]
        return start, end


@dataclass
class Report:
    """What was taken in, in rows; `partitions` are assets and Dagster's keys, such as `bars:month|symbol`.

    What this very delivery brought before is unchanged, even if another has corrected it since: it is not taken again.
    `disagreements` are bars delivered there that differ from the sum of shorter ones. `skipped` are files without rows
    that were found in a folder (one that is named itself is an error), `absent` are files that an archive lacks;
    `notes` say what a source lacks. `assets` are those that the rows went to.
    """

    taken: int = 0
    unchanged: int = 0
    corrected: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    disagreements: int = 0
    partitions: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
