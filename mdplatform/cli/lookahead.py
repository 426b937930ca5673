"""`mdplatform check-lookahead`: whether features use what was known only after their row closed."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.cli.frame import err, out
from mdplatform.errors import InvalidFeature

if TYPE_CHECKING:
    from mdplatform.features.lookahead import LookaheadReport, OwnFeature

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_lookahead(
    features: Annotated[
        list[str], typer.Argument(help='Such as "RSI(14)", or `module:function`, a function of bars of your own.')
    ],
    symbol: Annotated[str, typer.Option(help="Whose bars to check on.")] = "BTCUSDT",
    timeframe: Annotated[str, typer.Option(help="Such as 15m.")] = "15m",
    start: Annotated[str | None, typer.Option("--from", help="From this time on (ISO 8601, UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until before this time.")] = None,
    rows: Annotated[int, typer.Option(help="How many of the newest rows to check.")] = 1000,
    samples: Annotated[int, typer.Option(help="At how many of them to cut off what came later.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute features on data cut off at rows' closes, and show the rows that come out otherwise.

    The exit status is 1 if there are any. A function of your own takes a polars frame of bars and gives a value for
    each; it is imported from the folder that you are in, or from what is installed.

    Examples:

        mdplatform check-lookahead "RSI(14)" "VOLUME_PROFILE(row_size=50)" --symbol BTCUSDT --timeframe 1h

        mdplatform check-lookahead my_features:momentum --rows 5000
    """
    from mdplatform.features.lookahead import check_lookahead as check

    given = [_function(each) if _FUNCTION.fullmatch(each) else each for each in features]
    report = check(given, None, symbol, timeframe, start=start, end=end, rows=rows, samples=samples)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(1)


def _function(text: str) -> OwnFeature:
    module, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    remedy = "Write module:function, as you would import it from this folder"
    try:
        found = import_module(module)
    except ImportError as error:
        raise InvalidFeature(f"Module {module} cannot be imported ({error})", value=text, remedy=remedy) from error
    function = getattr(found, name, None)
    if not callable(function):
        raise InvalidFeature(f"Module {module} has no function {name}", value=text, remedy=remedy)
    return function  # type: ignore[no-any-return]


def _show(report: LookaheadReport) -> None:
    where = f"{report.rows:,} rows of {report.symbol} {report.timeframe}, cut off at {report.cuts} of them"
    for feature, count in report.counts.items():
        if count:
            out.print(f"{feature}: {count:,} values of {where} use what came later", markup=False, soft_wrap=True)
            for each in report.differences:
                if each.feature == feature:
                    out.print(f"  {each}", markup=False, soft_wrap=True, style="red")
        elif feature in report.without_values:
            err.print(f"{feature}: no value in {where}: nothing can be told", markup=False, soft_wrap=True)
        else:
            out.print(f"{feature}: no look-ahead in {where}", markup=False, soft_wrap=True)
