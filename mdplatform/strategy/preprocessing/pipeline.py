"""A pipeline of steps with the schema that it was fitted on; it can be saved, and run live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import PlatformError
from mdplatform.market.timeframe import Timeframe
from mdplatform.strategy.preprocessing.columns import to_instant
from mdplatform.strategy.preprocessing.parameters import Parameters
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.schema import Schema, check_names
from mdplatform.strategy.preprocessing.step import Fitted, Pasts, Step, Transformed
from mdplatform.strategy.preprocessing.table import Table

if TYPE_CHECKING:
    from mdplatform.strategy.preprocessing.live import LivePreprocessing


class Preprocessing(Parameters):
    """Steps in a row, fitted together on the training slice.

    `steps` are pairs of a name and a step, or steps alone, which are then named for what they are. Where the rows tell
    their timeframe (`timeframe`, or `open_time` and `close_time`) it need not be given. Where bars are missing from the
    rows, what looks back begins anew, unless `across_holes`: a market that closes at night has such rows.

        preprocessing = Preprocessing([LogReturns(columns=["close"]), MissingData("drop"), RobustZScore(), Windows(64)])
        samples = preprocessing.fit(frame, until="2025-06-01").transform(frame)
        preprocessing.save("model/preprocessing.json")
    """

    schema: Schema
    _learned: list[dict[str, Fitted]]

    def __init__(
        self,
        steps: Sequence[tuple[str, Step]] | Sequence[Step],
        timeframe: str | None = None,
        across_holes: bool = False,
    ) -> None:
        self.steps = steps
        self.timeframe = timeframe
        self.across_holes = across_holes

    # What scikit-learn asks.

    def fit(self, X: Any, y: Any = None, *, until: datetime | str | None = None) -> Self:  # noqa: N803
        """Learn from these rows; with `until` only from those that were available by then. Raises `PlatformError`."""
        steps = self.named_steps
        vars(self).pop("schema", None)  # what fails halfway is not fitted
        table = Table.of(X).closed()
        if until is not None:
            table = _known_by(table, until)
        if not len(table):
            raise refused("There are no rows to fit on")
        schema = Schema.of(table, self.timeframe)
        table = begun_anew(table, _length(schema, self.across_holes), {})
        for at, (name, step) in enumerate(steps.items()):
            try:
                step.fit_table(table)
                given = step.run(table, {}) if at + 1 < len(steps) else table
            except PlatformError as error:
                error.field = f"{name}.{error.field}".rstrip(".")
                raise
            assert isinstance(given, Table)  # `named_steps` has looked
            table = given
        self.schema = schema
        self._note_fitted()
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Give the rows transformed, in the form that they came in, or as `Samples`. Raises `SchemaMismatch`."""
        table = self.table(X).closed()
        return self.run(begun_anew(table, self.length, {}), self.beginnings()).like(X)

    def fit_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Learn from these rows and give them transformed."""
        return self.fit(X, y).transform(X)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the parameters; with `deep` also the steps and theirs, as `name__parameter`."""
        told = super().get_params()
        if deep:
            for name, step in self.named_steps.items():
                told[name] = step
                told.update({f"{name}__{each}": value for each, value in step.get_params().items()})
        return told

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters, those of steps as `name__parameter`; then fit again. Raises `UnknownParameter`."""
        own = {name: value for name, value in parameters.items() if "__" not in name}
        super().set_params(**own)
        for name, value in parameters.items():
            step, separator, parameter = name.partition("__")
            if separator:
                if step not in self.named_steps:
                    raise refused("There is no such step", value=step, remedy=f"Steps: {', '.join(self.named_steps)}")
                self.named_steps[step].set_params(**{parameter: value})
        return self

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Give the names of the columns that come out."""
        self.check_fitted()
        return list(self.named_steps.values())[-1].get_feature_names_out()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "schema") and not self._is_changed

    def __sklearn_tags__(self) -> Any:
        return next(iter(self.named_steps.values())).__sklearn_tags__()

    # What is more than scikit-learn has.

    @property
    def named_steps(self) -> dict[str, Step]:
        """The steps by their names. Raises `InvalidPreprocessing` where they make no pipeline."""
        made: dict[str, Step] = {}
        for at, each in enumerate(self.steps):
            name, step = each if isinstance(each, tuple) else (type(each).__name__.lower(), each)
            if not isinstance(step, Step):
                raise refused("This is no step of preprocessing", field=f"steps[{at}]", value=type(step).__name__)
            if not isinstance(each, tuple) and name in made:
                name = f"{name}-{at + 1}"
            if name in made or "__" in name or not name:
                raise refused("Give each step a name of its own, without `__`", field=f"steps[{at}]", value=name)
            made[name] = step
        if not made:
            raise refused("A preprocessing needs a step", field="steps")
        from mdplatform.strategy.preprocessing.windows import Windows

        if any(isinstance(step, Windows) for step in list(made.values())[:-1]):
            raise refused("Windows are made by the last step", field="steps")
        return made

    @property
    def rows_before(self) -> int:
        """How many rows before a row its values look back on, if no row is dropped: so many make it warm."""
        return sum(step.rows_before for step in self.named_steps.values())

    def live(self, history: Any = None) -> LivePreprocessing:
        """Give the live twin: `update(rows)` takes what comes, and gives what `transform` would in the whole."""
        from mdplatform.strategy.preprocessing.live import LivePreprocessing

        return LivePreprocessing(self, history)

    def save(self, path: Path | str) -> None:
        """Write it with its schema to one JSON file, in one step: a reader sees the old file or the new one."""
        from mdplatform.strategy.preprocessing.store import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: Path | str) -> Preprocessing:
        """Read what `save` wrote. Raises `InvalidPreprocessing`, or `SchemaMismatch` where features have changed."""
        from mdplatform.strategy.preprocessing.store import load

        return load(Path(path))

    def table(self, rows: Any) -> Table:
        """Take rows in, and hold them to the schema."""
        self.check_fitted()
        has_order = not isinstance(rows, Mapping | np.ndarray | list | tuple)
        table = Table.of(rows, None if has_order else self.schema.names)
        self.schema.check(table)
        return table

    def run(self, table: Table, pasts: Sequence[Pasts]) -> Transformed:
        """Run a table through all steps, each with the pasts of its own."""
        given: Transformed = table
        for step, past in zip(self.named_steps.values(), pasts, strict=True):
            assert isinstance(given, Table)
            given = step.run(given, past)
        return given

    def beginnings(self) -> list[Pasts]:
        """Give the pasts of steps that have seen nothing."""
        return [{} for _ in self.named_steps]

    @property
    def length(self) -> int:
        """The distance of one row from the next in µs, 0 where any is taken."""
        return _length(self.schema, self.across_holes)

    def _parameters(self) -> dict[str, Any]:
        return {**super()._parameters(), "steps": list(self.named_steps)}

    def _note_fitted(self) -> None:
        super()._note_fitted()
        self._learned = [step.fitted_ for step in self.named_steps.values()]

    def check_whole(self) -> None:
        """Raise what `check_fitted` does, or `SchemaMismatch` where a step was fitted on other columns than it gets."""
        self.check_fitted()
        names: Sequence[str] = self.schema.names
        for step in self.named_steps.values():
            check_names([str(each) for each in step.feature_names_in_], names)
            names = [str(each) for each in step.get_feature_names_out()]

    def check_fitted(self) -> None:
        """Raise `InvalidPreprocessing` where it was not fitted, or where it or a step was changed since."""
        if not hasattr(self, "schema"):
            raise refused("The preprocessing was not fitted", remedy="Call `fit` with the training rows, or `load` it")
        self._check_unchanged()
        for (name, step), learned in zip(self.named_steps.items(), self._learned, strict=True):
            try:
                step.check_fitted()
            except PlatformError as error:
                error.field = name
                raise
            if step.fitted_ is not learned:
                remedy = "Fit the whole again with the training rows"
                raise refused("A step was fitted by itself after the whole", field=name, remedy=remedy)


def _length(schema: Schema, across_holes: bool) -> int:
    return 0 if across_holes or not schema.timeframe else Timeframe.parse(schema.timeframe).microseconds


Newest = dict[str, tuple[int, int]]
"""By symbol, the time of its newest row and the unbroken run that it is of."""


def begun_anew(table: Table, length: int, newest: Newest) -> Table:
    """Count the unbroken runs of each symbol's rows on from `newest`, and bring it up to date.

    A new run begins where a row is not `length` (µs) after the one before; never, where that is 0. Raises
    `InvalidPreprocessing` where a row is not after the newest one.
    """
    if table.times is None or not len(table):
        return table
    runs = np.zeros(len(table), dtype=np.int64)
    for symbol, rows in table.by_symbol():
        times = table.times[rows]
        last, run = newest.get(symbol, (int(times[0]) - length, 0))
        if symbol in newest and times[0] <= last:
            raise refused(
                f"The row is not after the newest one{f' of {symbol}' if symbol else ''}",
                field="open_time",
                remedy="Live rows come in order, each once; a corrected one needs a new twin with its history",
            )
        if length:
            breaks = np.diff(times, prepend=last) != length
            runs[rows] = run + np.cumsum(breaks)
        newest[symbol] = (int(times[-1]), int(runs[rows[-1]]))
    return replace(table, runs=runs)


def _known_by(table: Table, until: datetime | str) -> Table:
    if isinstance(until, str):
        try:
            until = datetime.fromisoformat(until)
        except ValueError:
            raise refused(
                "This is no instant", field="until", value=until, remedy="ISO 8601, such as 2025-06-01"
            ) from None
    instant = to_instant(until, "until")
    if table.known_at is None:
        raise refused(
            "The rows tell no times", field="until", remedy="Give `available_at`, or open_time and close_time"
        )
    return table.take(table.known_at <= instant)
