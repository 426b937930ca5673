"""Small plots and tables for Dagster's UI, inline in markdown: no server and no file needed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.market.time import from_us
from mdplatform.market.timeframe import DAY_US

_WIDTH, _HEIGHT, _MOST_POINTS = 640, 140, 320
_MOST_BARS = 240
_COLOURS = ("#3b6fd4", "#e07b39", "#4a9d5b", "#a04fb0")
_MOST_CELLS, _MOST_NAMES, _MOST_NUMBERS = 60, 40, 12
_SHADES, _UNKNOWN = 41, "#cccccc"
_LEFT, _RIGHT, _MOST_TICKS = 62, 14, 12


def sparkline(title: str, lines: Sequence[tuple[str, pl.Series]]) -> str:
    """Give markdown with a picture of `lines` (name, numbers; nulls are holes), each group on one common scale."""
    known = [series.drop_nulls() for _, series in lines]
    if not any(len(series) for series in known):
        return f"{title}: nothing to draw"
    low = min(float(series.min()) for series in known if len(series))  # type: ignore[arg-type]
    high = max(float(series.max()) for series in known if len(series))  # type: ignore[arg-type]
    paths = "".join(
        f'<path d="{_path(series, low, high)}" fill="none" stroke="{_COLOURS[at % len(_COLOURS)]}" stroke-width="1.2"/>'
        f'<text x="{6 + 150 * at}" y="{_HEIGHT - 5}" fill="{_COLOURS[at % len(_COLOURS)]}">{name}</text>'
        for at, (name, series) in enumerate(lines)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="6" y="13" fill="#333">{title}</text><text x="{_WIDTH - 6}" y="13" text-anchor="end" fill="#777">'
        f"{low:.6g} … {high:.6g}</text>{paths}</svg>"
    )
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def histogram(title: str, rows: pl.DataFrame, poc: float, low: float, high: float) -> str:
    """Give markdown with a picture of a volume profile: price upwards, volume across, bought and sold in two colours.

    `rows` are those of a `VolumeProfile`; the value area from `low` to `high` is shaded, and a line marks `poc`.
    """
    if rows.is_empty():
        return f"{title}: nothing to draw"
    together = -(-rows.height // _MOST_BARS)
    bars = rows.group_by(pl.int_range(pl.len()) // together, maintain_order=True).agg(
        pl.first("price_low"),
        pl.last("price_high"),
        pl.sum("volume"),
        # where the sides are not told, all of it has one colour
        pl.col("taker_buy_volume").fill_null(pl.col("volume")).sum(),
    )
    bottom, top = float(bars["price_low"][0]), float(bars["price_high"][-1])
    height = 2 * _HEIGHT
    up, across = (height - 40) / (top - bottom), (_WIDTH - 12) / float(bars["volume"].max())  # type: ignore[arg-type]

    def at(price: float) -> float:
        return height - 20 - (price - bottom) * up

    def bar(begin: float, end: float, price_low: float, price_high: float, colour: str) -> str:
        tall = max((price_high - price_low) * up * 0.9, 0.5)
        return (
            f'<rect x="{6 + begin * across:.1f}" y="{at(price_high):.1f}" width="{(end - begin) * across:.1f}" '
            f'height="{tall:.1f}" fill="{colour}"/>'
        )

    drawn = "".join(
        bar(0, bought, first, last, _COLOURS[0]) + bar(bought, volume, first, last, _COLOURS[1])
        for first, last, volume, bought in bars.select(
            "price_low", "price_high", "volume", "taker_buy_volume"
        ).iter_rows()
    )
    legend = "".join(
        f'<text x="{6 + 150 * place}" y="{height - 5}" fill="{_COLOURS[place]}">{name}</text>'
        for place, name in enumerate(("bought", "sold") if rows["taker_buy_volume"].null_count() == 0 else ("volume",))
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<rect x="0" y="{at(high):.1f}" width="{_WIDTH}" height="{(high - low) * up:.1f}" fill="#f1efe6"/>{drawn}'
        f'<line x1="0" x2="{_WIDTH}" y1="{at(poc):.1f}" y2="{at(poc):.1f}" stroke="#c0392b" stroke-width="1"/>'
        f'<text x="6" y="13" fill="#333">{title}</text><text x="{_WIDTH - 6}" y="13" text-anchor="end" fill="#777">'
        f"{bottom:.6g} … {top:.6g}, POC {poc:.6g}, value area {low:.6g} … {high:.6g}</text>{legend}</svg>"
    )
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def heat_map(title: str, names: Sequence[str], matrix: NDArray[np.float64]) -> str:
    """Give markdown with a picture of a matrix of correlations: −1 blue, 0 white, 1 red, null grey.

    More than 60 names are drawn as squares of their means. Names stand at both axes, every second one above 20 and none
    above 40; up to 12 have their numbers in the cells.
    """
    count = len(names)
    if not count:
        return f"{title}: nothing to draw"
    edges = np.linspace(0, count, min(count, _MOST_CELLS) + 1).astype(int)
    cells = len(edges) - 1
    side = max(7, min(56, 480 // cells))
    labelled = [] if count > _MOST_NAMES else list(range(0, count, 2 if count > _MOST_NAMES // 2 else 1))
    margin = 7 * max((len(names[at]) for at in labelled), default=0) + 8
    top, size = 22 + margin, cells * side
    drawn = []
    for row in range(cells):
        for column in range(cells):
            part = matrix[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
            known = part[~np.isnan(part)]
            x, y = margin + column * side, top + row * side
            drawn.append(f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{_heat(known)}"/>')
            if count <= _MOST_NUMBERS and len(known):
                ink = "#fff" if abs(known[0]) > 0.75 else "#333"
                drawn.append(_text(x + side / 2, y + side / 2 + 4, f"{known[0]:.2f}".replace("-", "−"), ink, "middle"))
    for at in labelled:
        middle = at * side + side // 2
        drawn.append(_text(margin - 4, top + middle + 4, names[at], "#555", "end"))
        drawn.append(
            f'<text transform="translate({margin + middle + 4} {top - 4}) rotate(-90)" fill="#555">'
            f"{escape(names[at])}</text>"
        )
    scale, step = margin + size + 14, size / _SHADES
    for shade in range(_SHADES):
        value = 1 - 2 * (shade + 0.5) / _SHADES
        drawn.append(
            f'<rect x="{scale}" y="{top + shade * step:.1f}" width="12" height="{step + 0.5:.1f}" '
            f'fill="{_heat(np.array([value]))}"/>'
        )
    for value in (1.0, 0.5, 0.0, -0.5, -1.0):
        drawn.append(_text(scale + 16, top + (1 - value) / 2 * size + 4, f"{value:g}".replace("-", "−"), "#555"))
    if np.isnan(matrix).any():
        drawn.append(f'<rect x="{margin}" y="{top + size + 8}" width="10" height="10" fill="{_UNKNOWN}"/>')
        drawn.append(_text(margin + 14, top + size + 17, "no number", "#555"))
    width = max(scale + 44, 7 * len(title) + 12)
    return _picture(title, width, top + size + 24, "".join(drawn))


@dataclass(frozen=True)
class Panel:
    """Lines, or bars from 0, of one panel: what it is of and each one's name and numbers, one for each time."""

    said: str
    lines: Sequence[tuple[str, pl.Series]]
    as_bars: bool = False


def over_time(title: str, times: pl.Series, panels: Sequence[Panel]) -> str:
    """Give markdown with a picture of panels one below the other, over a common axis of time.

    `times` ascend. A line is broken at nulls, and where more than three times the usual distance of the times, and more
    than ten days, have nothing. Where there are more points than can be seen, the least and the greatest of each column
    of the picture are drawn.
    """
    instants = times.dt.epoch("us").cast(pl.Float64)
    if not len(instants) or not any(len(line.drop_nulls()) for panel in panels for _, line in panel.lines):
        return f"{title}: nothing to draw"
    first, last = float(instants[0]), float(instants[-1])
    across = (_WIDTH - _LEFT - _RIGHT) / max(last - first, 1.0)
    places = ((instants - first) * across + _LEFT).alias("x")
    distance = instants.diff()
    usual = distance.quantile(0.9, "lower") or 0.0
    gaps = (distance > max(3 * usual, 10.0 * DAY_US)).fill_null(False)
    heights = [_HEIGHT if not panel.as_bars else _HEIGHT // 2 for panel in panels]
    drawn, top = [], 20
    for place, label in _ticks(from_us(int(first)), from_us(int(last)), _LEFT, across):
        drawn.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="20" y2="{20 + sum(heights)}" stroke="#e6e6e6"/>')
        drawn.append(_text(place, 34 + sum(heights), label, "#555", "middle"))
    for panel, height in zip(panels, heights, strict=True):
        drawn.append(_panel(panel, places, gaps, top, height))
        top += height
    return _picture(title, _WIDTH, top + 20, "".join(drawn))


def _panel(panel: Panel, places: pl.Series, gaps: pl.Series, top: int, height: int) -> str:
    known = pl.concat([line.cast(pl.Float64).drop_nulls() for _, line in panel.lines])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)  # type: ignore[arg-type]
    if panel.as_bars:
        low, high = min(low, 0.0), max(high, 0.0)
    head, foot = top + 20, top + height - 8
    up = (foot - head) / (high - low) if high > low else 0.0
    at_zero = foot + low * up
    drawn = []
    for value in dict.fromkeys((low, 0.0 if low < 0 < high else (low + high) / 2, high)):
        y = foot - (value - low) * up
        drawn.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6e6e6"/>')
        drawn.append(_text(_LEFT - 5, y + 4, f"{value:.5g}".replace("-", "−"), "#777", "end"))
    x = float(_LEFT)
    for number, name in enumerate([panel.said, *(name for name, _ in panel.lines if name)]):
        drawn.append(_text(x, top + 13, name, _COLOURS[number - 1] if number else "#333"))
        x += 6.2 * len(name) + 14
    for number, (_, line) in enumerate(panel.lines):
        points = _points(places, line, gaps)
        path = []
        for at, (place, value, run) in enumerate(points):
            y = foot - (value - low) * up
            if panel.as_bars:
                path.append(f"M{place:.1f} {at_zero:.1f}V{y:.1f}" if value else "")
            elif at and points[at - 1][2] == run:
                path.append(f"L{place:.1f} {y:.1f}")
            else:
                path.append(f"M{place:.1f} {y:.1f}h.1")  # a point alone is a dot
        drawn.append(
            f'<path d="{"".join(path)}" fill="none" stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.2" '
            f'stroke-linecap="round"/>'
        )
    return "".join(drawn)


def _points(places: pl.Series, line: pl.Series, gaps: pl.Series) -> list[tuple[float, float, int]]:
    """Give place, number and which unbroken run it is of: for each column of the picture the least and the greatest."""
    broken = (line.is_null() | gaps).alias("broken")
    frame = pl.DataFrame([places, line.cast(pl.Float64).alias("y"), broken])
    known = frame.with_columns(pl.col("broken").cum_sum().alias("run")).drop_nulls("y")
    column = (pl.col("x") * _MOST_POINTS / _WIDTH).floor()
    within = pl.int_range(pl.len())
    ends = (within == pl.col("y").arg_min()) | (within == pl.col("y").arg_max())
    return known.filter(ends.over(column)).select("x", "y", "run").rows()


def _ticks(first: datetime, last: datetime, left: int, across: float) -> list[tuple[float, str]]:
    """Give places and labels of years, or of months where there are less than two years; at most twelve or so."""
    months = 12 * (last.year - first.year) + last.month - first.month
    step = next(each for each in (1, 3, 12, 24, 60, 120, 240, 600, 1200) if months / each <= _MOST_TICKS)
    start = 12 * first.year + first.month - 1
    found = []
    for month in range(start - start % step, 12 * last.year + last.month, step):
        at = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        if first <= at <= last:
            found.append(
                (left + (at - first) / timedelta(microseconds=1) * across, f"{at:%Y}" if step >= 12 else f"{at:%b %Y}")
            )
    return found or [(float(left), f"{first:%Y-%m-%d}")]


def _text(x: float, y: float, said: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(said)}</text>'


def _picture(title: str, width: int, height: int, drawn: str) -> str:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>'
        f"{_text(6, 13, title, '#333')}{drawn}</svg>"
    )
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _heat(known: NDArray[np.float64]) -> str:
    if not len(known):
        return _UNKNOWN
    value = float(known.mean())
    strong = (59, 111, 212) if value < 0 else (208, 56, 48)
    return "#" + "".join(f"{round(255 + (each - 255) * min(1.0, abs(value))):02x}" for each in strong)


def _path(series: pl.Series, low: float, high: float) -> str:
    thinned = series.gather_every(max(1, len(series) // _MOST_POINTS))
    across = _WIDTH / max(1, len(thinned) - 1)
    up = (_HEIGHT - 40) / (high - low) if high > low else 0.0
    steps, broken = [], True
    for at, number in enumerate(thinned.to_list()):
        if number is None:
            broken = True
            continue
        steps.append(f"{'M' if broken else 'L'}{at * across:.1f} {_HEIGHT - 20 - (number - low) * up:.1f}")
        broken = False
    return "".join(steps)


def counts_table(of: str, counts: Mapping[str, int]) -> str:
    """Give a markdown table of how many there are of each, in the order given.

    >>> print(counts_table("rule", {"off_grid": 2}))
    | rule | rows |
    | --- | ---: |
    | off_grid | 2 |
    """
    rows = [f"| {name} | {count:,} |" for name, count in counts.items()]
    return "\n".join([f"| {of} | rows |", "| --- | ---: |", *rows])
