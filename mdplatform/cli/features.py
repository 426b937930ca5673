"""`mdplatform features`: what can be asked for, with parameters, ranges and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.cli.frame import out

if TYPE_CHECKING:
    from mdplatform.features.definition import Definition


def features(
    name: Annotated[str | None, typer.Argument(help="One feature, such as RSI; all if left out.")] = None,
    kind: Annotated[str | None, typer.Option(help="List those of one kind, such as indicators or macro.")] = None,
) -> None:
    """List the features of every kind that can be read, or tell all of one.

    Examples:

        mdplatform features --kind macro

        mdplatform features BBANDS
    """
    if name is not None:
        _tell(name)
        return
    _list(kind)


def _list(kind: str | None) -> None:
    from rich.table import Table

    from mdplatform.errors import InvalidFeature
    from mdplatform.features.kinds import INDICATORS, KINDS
    from mdplatform.features.parse import parse_feature
    from mdplatform.features.registry import ALIASES, definition, function_names

    if kind is not None and kind not in KINDS:
        raise InvalidFeature("Unknown kind of features", value=kind, remedy=f"Known: {', '.join(KINDS)}")
    every = [definition(each) for each in function_names()]
    for one in KINDS if kind is None else (kind,):
        table = Table("name", "title", "group", "parameters", "outputs", title=one, title_justify="left")
        for each in (each for each in every if each.kind == one):
            table.add_row(each.name, each.title, each.group, ", ".join(_parameters(each)), ", ".join(each.outputs))
        out.print(table)
    if kind in (None, INDICATORS):
        out.print("; ".join(f"{alias} is {parse_feature(alias)}" for alias in ALIASES), soft_wrap=True)


def _tell(name: str) -> None:
    from rich.table import Table

    from mdplatform.features.panel import reads
    from mdplatform.features.parse import parse_feature
    from mdplatform.features.registry import definition, function_names
    from mdplatform.features.spec import FORMULA, FeatureSpec
    from mdplatform.market.timeframe import Timeframe
    from mdplatform.serving.result import output_names

    known = name.strip().upper() in function_names()
    one = definition(name.strip().upper()) if known else parse_feature(name).definition
    spec: FeatureSpec | None = None if known and one.required else parse_feature(name)
    table = Table(
        "parameter", "default", "allowed", title=f"{one.name}: {one.title} ({one.group})", title_justify="left"
    )
    for each in one.parameters:
        default = "must be given" if each.name in one.required else str(each.default)
        table.add_row(each.name, default, each.allowed)
    out.print(table)
    if spec is None:
        call = f"{one.name}({', '.join(_parameters(one))})"
        written = "it is, such as `(RSI - 50) * 0.6`" if one.name == FORMULA else call
        out.print(f"gives {', '.join(one.outputs)}; written as {written}", soft_wrap=True)
        return
    read = ", ".join(spec.inputs)
    if not read:
        needs = reads([spec], "the symbol", Timeframe.H1)
        read = ", ".join(sorted(" of ".join(filter(None, need)) for need in needs))
    out.print(f"reads {read}; gives {', '.join(output_names(spec))}; written as {spec}", soft_wrap=True)


def _parameters(one: Definition) -> list[str]:
    return [f"{each.name}={'…' if each.name in one.required else each.default}" for each in one.parameters]
