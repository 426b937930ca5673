"""`mdplatform formula`: check a formula, register it under a name and version, list what is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdplatform.cli.frame import out

_HELP = """Formulas: check one, register composites, list them.

A formula is made of numbers, + - * / **, < <= > >= == !=, and or not, and of

columns of bars (close, volume, …), features (RSI, EMA(close, 20), one output as in MACD_MACDHIST), composites
(EMA_SPREAD, EMA_SPREAD:1);

abs log sqrt exp sign min max clip(x, low, high) where(condition, a, b);

over rows: lag(x, k) diff(x, k) sum(x, n) mean(x, n) std(x, n) (the population's, as STDDEV) zscore(x, n) rank(x, n) (a
share, 1 for the highest);

anywhere else: RSI@1h, close@ETHUSDT, mean(close, 5)@ETHUSDT@4h, (close - open)@1d.
"""

formula = typer.Typer(no_args_is_help=True, help=_HELP)

_SIGNED = {"ignore_unknown_options": True}  # so that a formula may begin with a minus

_Input = Annotated[
    list[str] | None,
    typer.Option("--input", help='A feature that the formula names, as "RSI(period=14)" or "FAST=EMA(close, 10)".'),
]


@formula.command(context_settings=_SIGNED)
def check(
    text: Annotated[str, typer.Argument(help='Such as "EMA(close, 20) / EMA(close, 50) - 1".')],
    given: _Input = None,
) -> None:
    """Say what a formula means: what each name stands for, how far back it looks, and its canonical form.

    Ends with status 0, or with 1 and the error, which points at the place.

    Example:

        mdplatform formula check "(RSI - 50) * 0.6" --input "RSI(period=21)"
    """
    from rich.table import Table

    from mdplatform.features.formula.nodes import as_spec
    from mdplatform.features.parse import parse_formula

    node, parser = parse_formula(text, _inputs(given))
    spec = as_spec(node)
    table = Table()
    for column in ("name", "stands for"):
        table.add_column(column, overflow="fold")
    for name, meaning in parser.names.meant.items():
        table.add_row(name, meaning)
    out.print(table)
    out.print(f"canonical: {node.text}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"lookback {spec.lookback} rows, settle {spec.settle} rows, id {spec.id}", highlight=False)


@formula.command(context_settings=_SIGNED)
def register(
    name: Annotated[str | None, typer.Argument(help="The composite's name.")] = None,
    text: Annotated[str | None, typer.Argument(help="Its formula.")] = None,
    version: Annotated[int, typer.Option(help="Its version; a version never changes.")] = 1,
    given: _Input = None,
    title: Annotated[str, typer.Option(help="What it is, in words.")] = "",
    file: Annotated[Path | None, typer.Option(help="A YAML file of composites, instead of name and formula.")] = None,
) -> None:
    """Keep a composite in the home, so that everything that names features can name it.

    Examples:

        mdplatform formula register EMA_GAP "EMA(close, 10) / EMA(close, 30) - 1" --version 1

        mdplatform formula register --file composites.yaml
    """
    from mdplatform.features.composites import read_file
    from mdplatform.lake import Lake
    from mdplatform.settings import Settings

    if (file is None) == (name is None or text is None):
        raise typer.BadParameter("give a name and a formula, or --file")
    if file is not None:
        declared = read_file(file)
    else:
        inputs = _inputs(given)
        declared = [{"name": name, "formula": text, "version": version, "input_indicators": inputs, "title": title}]
    for made in Lake(Settings.load().lake_dir).composites.add(declared):
        out.print(f"{made} is {made.resolved}", markup=False, highlight=False, soft_wrap=True)


@formula.command("list")
def list_composites() -> None:
    """List the composites that can be named: the standing ones, and those that the home keeps."""
    from rich.table import Table

    from mdplatform.features.composites import composites

    table = Table("name", "version", "formula", "title")
    for each in composites():
        table.add_row(each.name, str(each.version), " ".join(each.formula.split()), each.title)
    out.print(table)


def _inputs(given: list[str] | None) -> list[dict[str, Any] | str]:
    """Read each as `NAME=feature`, or as a feature that has its own name."""
    from mdplatform.features.parse import parse_feature
    from mdplatform.features.spec import FORMULA

    inputs: list[dict[str, Any] | str] = []
    for each in given or []:
        name, sign, feature = (part.strip() for part in each.partition("="))
        if not (sign and name.isidentifier()):
            inputs.append(each)
            continue
        spec = parse_feature(feature)
        place = {"symbol": spec.symbol, "timeframe": None if spec.timeframe is None else spec.timeframe.value}
        what: dict[str, Any] = {"formula": str(spec)}
        if spec.name != FORMULA:
            what = {"name": spec.name, "parameters": spec.arguments, "inputs": list(spec.inputs), "output": spec.output}
        inputs.append({"as": name, **{key: value for key, value in (what | place).items() if value}})
    return inputs
