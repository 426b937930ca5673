"""Small plots and tables for Dagster's UI, inline in markdown: no server and no file needed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _MOST_POINTS = 640, 140, 320
_MOST_BARS = 240
_COLOURS = ("#3b6fd4", "#e07b39", "#4a9d5b", "#a04fb0")
_MOST_CELLS, _MOST_NAMES = 60, 30


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

    More than 60 names are drawn as squares of their means; up to 30 are named.
    """
    count = len(names)
    if not count:
        return f"{title}: nothing to draw"
    edges = np.linspace(0, count, min(count, _MOST_CELLS) + 1).astype(int)
    cells = len(edges) - 1
    side = max(4, 420 // cells)
    margin = 7 * max(map(len, names)) + 8 if count <= _MOST_NAMES else 6
    drawn = []
    for row in range(cells):
        for column in range(cells):
            part = matrix[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
            known = part[~np.isnan(part)]
            at = f'x="{margin + column * side}" y="{20 + row * side}"'
            drawn.append(f'<rect {at} width="{side}" height="{side}" fill="{_heat(known)}"/>')
    labels = [
        f'<text x="{margin - 4}" y="{20 + row * side + side // 2 + 4}" text-anchor="end" fill="#555">{name}</text>'
        for row, name in enumerate(names)
        if count <= _MOST_NAMES
    ]
    width, height = margin + cells * side + 6, 26 + cells * side
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="6" y="13" fill="#333">{title}</text>{"".join(drawn)}{"".join(labels)}</svg>'
    )
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _heat(known: NDArray[np.float64]) -> str:
    if not len(known):
        return "#cccccc"
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
