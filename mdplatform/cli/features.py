"""`mdplatform features`: what can be asked for, with parameters, ranges and outputs."""

from __future__ import annotations

from typing import Annotated

import typer

from mdplatform.cli.frame import out


def features(
    name: Annotated[str | None, typer.Argument(help="One feature, such as RSI; all if left out.")] = None,
) -> None:
    """List the features that can be read, or tell all of one.

    Example:

        mdplatform features BBANDS
    """
    from rich.table import Table

    from mdplatform.features.parse import parse_feature
    from mdplatform.features.registry import ALIASES, definition, function_names
    from mdplatform.serving.result import output_names

    if name is None:
        table = Table("name", "title", "group", "parameters", "outputs")
        for each in function_names():
            one = definition(each)
            parameters = ", ".join(f"{known.name}={known.default}" for known in one.parameters)
            table.add_row(one.name, one.title, one.group, parameters, ", ".join(one.outputs))
        out.print(table)
        out.print("; ".join(f"{alias} is {parse_feature(alias)}" for alias in ALIASES), soft_wrap=True)
        return
    spec = parse_feature(name)
    one = spec.definition
    table = Table(
        "parameter", "default", "allowed", title=f"{one.name}: {one.title} ({one.group})", title_justify="left"
    )
    for known in one.parameters:
        table.add_row(known.name, str(known.default), known.allowed)
    out.print(table)
    out.print(f"reads {', '.join(spec.inputs)}; gives {', '.join(output_names(spec))}; written as {spec}")
