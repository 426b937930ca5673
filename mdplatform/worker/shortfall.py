"""Shortfall: what a request cannot be answered without, that the lake does not have, and that a source may have.

1. A range wants the months of bars that it and its warm-up cover, of each symbol that its values come from; so far as
   they have begun, and the calendar of partitions has them. The newest rows of a symbol that has bars want nothing;
   those of one that is unknown want the running month, and as many before it as the rows and their warm-up need.
2. What is made of trades wants the days of trades likewise; for the newest rows only where there are no trades at all,
   and no value comes without them.
3. A macro series of which there is nothing is wanted from FRED. A provider of sentiment without any document is told.
4. A run helps only where a source can be asked: the symbol's own, or `data_source`; for macro series FRED, with a key.
   A warm-up is cut to what a request may have fetched; a range that is longer is told, with the remedy.

What is missing of a range is told whether a run helps or not; a warm-up that is missing shows in the values' status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from mdplatform.errors import UnknownProvider
from mdplatform.features.graph import load_from
from mdplatform.lake import Lake
from mdplatform.lake.universe import Member
from mdplatform.market.time import from_us, month_range, months_between
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.requests.answer import Missing
from mdplatform.settings import Settings
from mdplatform.sources.registry import ALIASES, SOURCES
from mdplatform.sources.table_registry import REMOTES
from mdplatform.worker.questions import AnyQuestion, FeatureQuestion, SeriesQuestion
from mdplatform.worker.telling import missing_of

MOST_MONTHS = 60
MOST_SYMBOLS = 20
MOST_DAYS = 62
"""The most partitions of one symbol, and symbols, that one request may want."""
_TRADES = ("profile", "flow")


@dataclass(frozen=True)
class Shortfall:
    """Partitions that runs could bring, by asset (keys of the lake), and what is not there, in words.

    `too_much` is more than one request may have fetched.
    """

    partitions: dict[str, tuple[str, ...]]
    missing: tuple[Missing, ...] = ()
    too_much: tuple[Missing, ...] = ()


def shortfall(
    lake: Lake, settings: Settings, asked: Iterable[tuple[AnyQuestion, bool]], now: int, *, run_is_over: bool = False
) -> Shortfall:
    """Give what questions lack; with each comes whether it has values. `now` is in microseconds."""
    look = _Look(lake, settings, now, run_is_over)
    for question, has_values in asked:
        look.at(question, has_values)
    return look.result()


class _Look:
    """Looks at the questions of one request."""

    def __init__(self, lake: Lake, settings: Settings, now: int, run_is_over: bool) -> None:
        self._lake = lake
        self._settings = settings
        self._now = now
        self._run_is_over = run_is_over
        self._months: dict[str, list[str]] = {}
        self._days: dict[str, set[str]] = {}
        self._wanted: dict[str, dict[str, set[str]]] = {"bars": {}, "trades": {}, "macro_series": {}}
        self._missing: dict[tuple[str, str, str], Missing] = {}
        self._too_much: list[Missing] = []

    def at(self, question: AnyQuestion, has_values: bool) -> None:
        """Look at one question."""
        for need in question.needs:
            if need.dataset == "macro" and self._lake.table("macro").partition(need.key) is None:
                self._want_series(need.key)
        if isinstance(question, SeriesQuestion):
            return
        start, end = self._span(question)
        for symbol in self._symbols(question):
            self._bars(question, symbol, start, end)
        if isinstance(question, FeatureQuestion):
            for need in question.needs:
                if need.dataset == "sentiment" and not has_values:
                    self._provider(question)
                if need.dataset == "trades" and question.target.spec.definition.kind in _TRADES:
                    self._trades(question, need.key, start, end, has_values)

    def result(self) -> Shortfall:
        """Give what was found, within the bounds."""
        partitions: dict[str, tuple[str, ...]] = {}
        if not self._run_is_over:
            for asset, most in (("bars", MOST_MONTHS), ("trades", MOST_DAYS), ("macro_series", 1)):
                wanted = self._wanted[asset]
                largest = max(map(len, wanted.values()), default=0)
                if largest > most or len(wanted) > MOST_SYMBOLS:
                    self._too_much.append(self._excess(asset, wanted, largest))
                elif wanted:
                    keys = (f"{name}/{each}" if each else name for name, periods in wanted.items() for each in periods)
                    partitions[asset] = tuple(sorted(keys))
        return Shortfall(partitions, tuple(self._missing.values()), tuple(self._too_much))

    # -- bars ---------------------------------------------------------------------------------------------------------

    def _symbols(self, question: AnyQuestion) -> tuple[str, ...]:
        return tuple(dict.fromkeys(need.key for need in question.needs if need.dataset == "bars"))

    def _span(self, question: AnyQuestion) -> tuple[int | None, int]:
        """Give from where to where rows are asked for; the newest `n` end at the running bar."""
        known = self._now if question.as_of is None else min(self._now, question.as_of)
        end = known if question.end is None else min(known, question.end)
        if question.n is None:
            return question.start, end
        timeframe = _timeframe(question)
        return timeframe.floor(end) - question.n * timeframe.microseconds, end

    def _bars(self, question: AnyQuestion, symbol: str, start: int | None, end: int) -> None:
        held = self._held(symbol)
        if held and (question.n is not None or start is None):
            return
        if not held and question.n is None and self._is_outside(start, end):
            cause = f"The range is outside of the calendar, {self._settings.first_month} to now"
            missing = Missing(symbol=symbol, timeframe=question.timeframe_name, feature=question.feature, cause=cause)
            self._too_much.append(msgspec.structs.replace(missing, remedy="Ask for a range within it"))
            return
        if question.n is not None and not isinstance(question, FeatureQuestion):
            self._tell(question, symbol, f"No bars of {symbol} are in the lake", [])
        timeframe = _timeframe(question)
        if question.end is None and held:  # to the newest there is
            end = min(end, month_range(held[-1])[1])
        begin = end if start is None else start
        rows = [month for month in months_between(begin, end) if month not in held]
        if question.n is None and rows:
            self._tell(question, symbol, f"No bars of {symbol} of {_span_text(rows)} are in the lake", rows)
        warm = [month for month in months_between(_loaded_from(question, timeframe, begin), end) if month not in held]
        if self._source(symbol) is not None:
            most = max(MOST_MONTHS, len(rows)) if question.n is None else MOST_MONTHS
            fitting = [each for each in warm[-most:] if each >= self._settings.first_month]
            if fitting:
                self._wanted["bars"].setdefault(symbol, set()).update(fitting)

    def _is_outside(self, start: int | None, end: int) -> bool:
        first = month_range(self._settings.first_month)[0]
        return end <= first or (start is not None and start >= self._now)

    def _held(self, symbol: str) -> list[str]:
        if symbol not in self._months:
            self._months[symbol] = self._lake.bars.months(symbol)
        return self._months[symbol]

    @cached_property
    def _members(self) -> dict[str, Member]:
        return self._lake.universe.members()

    def _source(self, symbol: str) -> str | None:
        """Give the source that a run would ask for bars of a symbol, None if there is none."""
        member = self._members.get(symbol)
        name = (member.source if member is not None else None) or self._settings.data_source
        return name if name is not None and ALIASES.get(name, name) in SOURCES else None

    # -- trades and series --------------------------------------------------------------------------------------------

    def _trades(self, question: FeatureQuestion, symbol: str, start: int | None, end: int, has_values: bool) -> None:
        held = self._days.get(symbol)
        if held is None:
            keys = self._lake.table("trades").keys(f"{symbol}/")
            held = self._days[symbol] = {each.rpartition("/")[2] for each in keys}
        if question.n is not None and (held or has_values):
            return
        bars = self._held(symbol)
        if not bars or start is None:
            return  # bars come first: trades are held against them
        if question.n is not None:
            extent = self._lake.bars.tail(symbol, question.target.timeframe, 1)
            if extent.is_empty():
                return
            end = int(extent["close_time"].dt.epoch("us")[-1])
            start = end - question.n * question.target.timeframe.microseconds
        end = min(end, month_range(bars[-1])[1])
        begin = _loaded_from(question, question.target.timeframe, start) - DAY_US
        days = [each for each in _days_between(begin, end) if each not in held and each[:7] in bars]
        remote = next((each for each in (self._source(symbol), self._settings.data_source) if _has_trades(each)), None)
        if days and remote is not None:
            self._wanted["trades"].setdefault(symbol, set()).update(days[-MOST_DAYS:] if question.n else days)

    def _provider(self, question: FeatureQuestion) -> None:
        """Tell of a provider that nobody took in: a misspelt name is no null."""
        provider = dict(question.target.spec.parameters).get("provider")
        if provider is None or provider in self._providers:
            return
        error = UnknownProvider(str(provider), self._providers)
        error.remedy += ". Documents are taken in with `mdplatform ingest`"
        self._missing[question.symbol, question.timeframe_name, question.feature] = missing_of(question, error)

    @cached_property
    def _providers(self) -> list[str]:
        store = self._lake.table("sentiment")
        keys = store.keys()
        return sorted({name for key in keys for name in store.read([key])["provider"].unique()})

    def _want_series(self, series: str) -> None:
        if self._settings.fred_api_key is not None:
            self._wanted["macro_series"][series] = {""}

    # -- words --------------------------------------------------------------------------------------------------------

    def _tell(self, question: AnyQuestion, symbol: str, cause: str, periods: Sequence[str]) -> None:
        key = (symbol, question.timeframe_name, question.feature)
        source = self._source(symbol)
        if source is None:
            remedy = (
                f"Take them in with `mdplatform ingest PATH --symbol {symbol}`, or name a source that has them in "
                "MDPLATFORM_DATA_SOURCE"
            )
        elif self._run_is_over or (periods and periods[-1] < self._settings.first_month):
            remedy = f"The source {source} did not give them: ask for another range"
        else:
            remedy = f"A run asks {source} for them"
        self._missing[key] = Missing(symbol=symbol, timeframe=key[1], feature=key[2], cause=cause, remedy=remedy)

    def _excess(self, asset: str, wanted: dict[str, set[str]], largest: int) -> Missing:
        """Say that it is too much, and how it is taken in otherwise."""
        unit, most = {"bars": ("months", MOST_MONTHS), "trades": ("days", MOST_DAYS)}.get(asset, ("series", 1))
        name, periods = next(iter(wanted)), sorted({each for of_name in wanted.values() for each in of_name})
        which = f"fred:{name}" if asset == "macro_series" else f"{self._source(name)}:{name}"
        spans = f" --from {periods[0]} --to {periods[-1]}" if periods[0] else ""
        return Missing(
            symbol=name if len(wanted) == 1 else "",
            cause=f"Up to {largest} {unit} of {asset} of {len(wanted)} names are not in the lake, and one request may "
            f"have {most} of {MOST_SYMBOLS} fetched",
            remedy=f"Use a backfill: mdplatform ingest {which}{spans}",
        )


def _timeframe(question: AnyQuestion) -> Timeframe:
    return Timeframe(question.timeframe_name)


def _loaded_from(question: AnyQuestion, timeframe: Timeframe, start: int) -> int:
    """Give from where bars count for rows that begin at `start`."""
    if isinstance(question, FeatureQuestion):
        spec = question.target.spec
        own = spec.timeframe or timeframe
        return load_from([spec.whole], own, start)
    return start - (getattr(question, "window", 0) + 1) * timeframe.microseconds


def _days_between(start: int, end: int) -> list[str]:
    return [f"{from_us(day):%Y-%m-%d}" for day in range(start - start % DAY_US, end, DAY_US)]


def _has_trades(source: str | None) -> bool:
    return source is not None and source in REMOTES["trades"]


def _span_text(months: Sequence[str]) -> str:
    return months[0] if len(months) == 1 else f"{len(months)} months from {months[0]} to {months[-1]}"
