"""Opening: features of a track that are opened anew, in a thread, while the stream goes on.

One opening at a time for a symbol. Behind a correction the symbol's bars are held meanwhile; for a wish they go on with
the features that there were, and the new ones catch up when they are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mdplatform.errors import PlatformError
from mdplatform.features.live import LiveFeatures
from mdplatform.features.spec import FeatureSpec
from mdplatform.lake import Lake
from mdplatform.market.bars import empty_bars
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.cells import Cell
from mdplatform.streaming.lane import Lane, Opened, as_live, as_table, open_features
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.track import Track

_Task = tuple[Timeframe, tuple[FeatureSpec, ...], list[LiveBar], int]


async def correct(lake: Lake, track: Track, corrected: Sequence[LiveBar]) -> list[Cell]:
    """Open the features anew that bars which were corrected had a part in; give the cells of all bars from there on."""
    async with track.opening:
        first = track.touched(corrected)
        lanes = [track.lanes[timeframe] for timeframe in first]
        tasks = [(each.timeframe, each.opened.specs, each.kept, first[each.timeframe]) for each in lanes]
        opened = await asyncio.to_thread(_open, lake, track.symbol, tasks)
        return track.adopt(opened, corrected)


async def fulfil(lake: Lake, track: Track, wanted: Mapping[Timeframe, tuple[FeatureSpec, ...]]) -> list[Cell]:
    """Have cells with these features and no others sent; give the newest cell of each lane that is new or has new ones.

    Where cells had to be told without features before, all of these are given anew.

    Raises `PlatformError` for features that cannot be opened; then all is as it was.
    """
    changed = {
        timeframe: specs
        for timeframe, specs in wanted.items()
        if timeframe not in track.sent or track.lanes[timeframe].opened.specs != specs
    }
    if not changed:
        track.sent = tuple(wanted)
        return []
    async with track.opening:
        for timeframe in changed:
            lane = track.lanes[timeframe]
            if lane.newest is None:
                before = lane.end - timeframe.microseconds
                lane.remember(await asyncio.to_thread(_read, lake, track.symbol, timeframe, before, lane.end))
        lanes = [track.lanes[timeframe] for timeframe in changed]
        tasks = [(each.timeframe, changed[each.timeframe], each.kept, _first(each)) for each in lanes]
        opened = await asyncio.to_thread(_open, lake, track.symbol, tasks)
        track.sent = tuple(wanted)
        cells = []
        for lane in lanes:
            without = lane.without
            values = lane.adopt(opened[lane.timeframe])
            if without is not None and lane.without is None:
                cells += lane.tell_again(values, without)
            elif (newest := lane.newest) is not None and newest.open_time in values:
                cells.append(lane.cell(newest, values[newest.open_time]))
                lane.is_news(cells[-1])
        return cells


def _first(lane: Lane) -> int:
    """Give the open time of the first bar whose features are wanted: the newest, or one told without them before."""
    if lane.without is not None:
        return lane.without
    return lane.end if lane.newest is None else lane.newest.open_time


def _open(lake: Lake, symbol: str, tasks: Sequence[_Task]) -> dict[Timeframe, Opened]:
    return {
        timeframe: open_features(lake, symbol, timeframe, specs, as_table(kept), end)
        for timeframe, specs, kept, end in tasks
    }


def _read(lake: Lake, symbol: str, timeframe: Timeframe, start: int, end: int) -> list[LiveBar]:
    return as_live(lake.bars.read(symbol, timeframe, start, end))


def refused(specs: Sequence[FeatureSpec], timeframe: Timeframe) -> dict[str, str]:
    """Give those features that cannot be computed live, and why."""
    found = {}
    for spec in specs:
        try:
            LiveFeatures([spec], timeframe, empty_bars())
        except PlatformError as why:
            found[f"{spec}{spec.place}"] = str(why)
    return found
