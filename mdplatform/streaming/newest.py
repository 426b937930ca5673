"""Which of several cells of one place stands: that of the newest bar, of one bar the highest revision and edition.

Of two that are alike in this it is the one with more of the features that are wanted: a feed tells its newest bars
again when it is asked for more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from mdplatform.streaming.cells import Cell
from mdplatform.streaming.shape import Fitting


def is_newer(cell: Cell, shown: Cell | None, fitting: Fitting) -> bool:
    """Tell whether a cell takes the place of the one that is shown."""
    if shown is None or cell.open_time != shown.open_time:
        return shown is None or cell.open_time > shown.open_time
    new, old = (cell.revision, cell.edition), (shown.revision, shown.edition)
    return new > old or (new == old and fitting.adds(cell.layout, shown.layout))


def insert(ahead: list[Cell], cell: Cell, fitting: Fitting) -> None:
    """Put a cell among those that wait, by open time; of one bar that which stands stays."""
    if not ahead or ahead[-1].open_time < cell.open_time:
        ahead.append(cell)
        return
    place = bisect_left(ahead, cell.open_time, key=lambda each: each.open_time)
    if ahead[place].open_time != cell.open_time:
        ahead.insert(place, cell)
    elif is_newer(cell, ahead[place], fitting):
        ahead[place] = cell


def take_closed(ahead: list[Cell], time: int) -> Cell | None:
    """Take those that have closed by `time` (microseconds) from the cells that wait; give the newest of them."""
    if ahead and ahead[-1].close_time <= time:
        newest = ahead[-1]
        ahead.clear()
        return newest
    closed = bisect_right(ahead, time, key=lambda each: each.close_time)
    if not closed:
        return None
    newest = ahead[closed - 1]
    del ahead[:closed]
    return newest
