"""Write `talib_functions.json` anew from the TA-Lib that is installed: `python -m mdplatform.features.generate`.

The file freezes what the registry states of each function, so that no default of the library is relied on and nothing
needs the library to read a feature's text. In steps, for each function:

1. names, inputs, outputs, parameters and defaults are read from `talib.abstract`;
2. ranges, which the library does not show, are probed: between a value that it takes and one that it refuses
   (`TA_BAD_PARAM`), bisection finds the edge. Real ranges are cut to ±1e6, which is beyond any use;
3. functions without an integer parameter get their lookback here; for the others `lengths.py` has a formula.

Read the difference before you commit it: a changed default is a changed identity of every value computed with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mdplatform.features.definition import MOVING_AVERAGES
from mdplatform.features.talib_functions import version_of

talib: Any = import_module("talib")
abstract: Any = import_module("talib.abstract")

TARGET = Path(__file__).with_name("talib_functions.json")
REAL_LIMIT = 1e6
INTEGER_LIMIT = 2**31 - 1
_ROWS = np.linspace(1.0, 2.0, 8)
_AT_THEIR_WIDEST = {"minperiod": {"maxperiod": 100_000}, "maxperiod": {"minperiod": 1}}  # MAVP: min ≤ max


def describe_library() -> dict[str, Any]:
    """Give the content of the frozen file, as the installed TA-Lib has it."""
    functions = {name: describe_function(name) for name in sorted(talib.get_functions())}
    return {"engine": version_of(talib), "functions": functions}


def describe_function(name: str) -> dict[str, Any]:
    """Give what the frozen file holds of one function."""
    function = abstract.Function(name)
    info = function.info
    inputs: list[dict[str, Any]] = []
    for role, columns in info["input_names"].items():
        for column in [columns] if isinstance(columns, str) else columns:
            inputs.append({"column": column, "free": role != "prices"})
    described = {
        "title": info["display_name"],
        "group": info["group"],
        "inputs": inputs,
        "parameters": [_describe_parameter(name, each) for each in info["parameters"]],
        "outputs": list(info["output_names"]),
    }
    if all(isinstance(default, float) for default in info["parameters"].values()):
        described["lookback"] = function.lookback
    return described


def _describe_parameter(function_name: str, parameter: str) -> dict[str, Any]:
    default = abstract.Function(function_name).parameters[parameter]

    def is_taken(value: float) -> bool:
        function = abstract.Function(function_name)
        function.parameters = {**_AT_THEIR_WIDEST.get(parameter, {}), parameter: value}
        columns = dict.fromkeys(("open", "high", "low", "close", "volume", "periods"), _ROWS)
        try:
            function(columns)
        except Exception as error:
            if "BAD_PARAM" not in str(error):
                raise
            return False
        return True

    if parameter.endswith("matype"):
        choices = [each for each in MOVING_AVERAGES if is_taken(each)]
        return {"name": parameter, "kind": "choice", "default": default, "choices": choices}
    if isinstance(default, int):
        return {
            "name": parameter,
            "kind": "integer",
            "default": default,
            "minimum": _integer_edge(is_taken, default, -INTEGER_LIMIT),
            "maximum": _integer_edge(is_taken, default, INTEGER_LIMIT),
        }
    return {
        "name": parameter,
        "kind": "real",
        "default": default,
        "minimum": _real_edge(is_taken, default, -REAL_LIMIT),
        "maximum": _real_edge(is_taken, default, REAL_LIMIT),
    }


def _integer_edge(is_taken: Callable[[float], bool], inside: int, outside: int) -> int:
    if is_taken(outside):
        return outside
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if is_taken(middle) else (inside, middle)
    return inside


def _real_edge(is_taken: Callable[[float], bool], inside: float, outside: float) -> float:
    if is_taken(outside):
        return outside
    for _ in range(80):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_taken(middle) else (inside, middle)
    return round(inside, 9) + 0.0


def main() -> None:
    """Write the file, one function a line."""
    TARGET.write_text(as_text(describe_library()), encoding="utf-8")


def as_text(described: dict[str, Any]) -> str:
    """Give the file's text, one function a line, so that a change shows as the line that it is."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in described["functions"].items())
    return f'{{\n "engine": {json.dumps(described["engine"])},\n "functions": {{\n{lines}\n }}\n}}\n'


if __name__ == "__main__":
    main()
