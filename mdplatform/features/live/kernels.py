"""What computes one feature a row at a time, opened from the rows of its segment.

- `Stream`: a handle of `talib.stream`, which gives the very bits of the batch function.
- `RunningDelta`: CVD, which adds to what it has.
- `Window`: the batch function on the newest rows, as many as a value looks at.

A kernel `opens` with the columns of a segment up to its newest row, and gives a state with `update` and `peek`, or None
where these rows are too few; `at_end` gives what the batch function gives for the newest row, whatever is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdplatform.features import talib_functions
from mdplatform.features.flow.functions import FUNCTIONS
from mdplatform.features.flow.of_bars import flow_rows
from mdplatform.features.indicators import reason_of_no_number
from mdplatform.features.live.ability import is_windowed
from mdplatform.features.live.rows import Rows
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats

Answer: TypeAlias = "float | tuple[float, ...]"
Columns: TypeAlias = Sequence[Floats]


class State(Protocol):
    """What is kept of the rows so far."""

    @property
    def update(self) -> Callable[..., Answer]:
        """Take the inputs of the next row in, and give the outputs."""
        ...

    @property
    def peek(self) -> Callable[..., Answer]:
        """Give what `update` would give, and take nothing in."""
        ...


class Kernel(Protocol):
    """How one feature is computed live; `reads_rows` says that its state are the newest rows."""

    reads_rows: bool

    def opened(self, columns: Columns) -> State | None:
        """Give the state after the rows of a segment, None where they are too few."""
        ...

    def at_end(self, columns: Columns) -> tuple[float, ...]:
        """Give the outputs in the newest row of a segment."""
        ...

    def reason(self) -> int:
        """Give the status of outputs that are no finite numbers, as those given last; 0 where they stay as they are."""
        ...


class Stream:
    """A function of TA-Lib."""

    reads_rows = False

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._settings = [value for name, value in spec.parameters if name != "anchor"]
        self._reason = reason_of_no_number(spec)

    def opened(self, columns: Columns) -> State | None:
        """Open a handle."""
        library = _streams()
        try:
            handle: State = getattr(library.stream, self._spec.name)(*columns, *self._settings)
        except library.InsufficientHistory:
            return None
        return handle

    def at_end(self, columns: Columns) -> tuple[float, ...]:
        """Run the batch function."""
        return tuple(float(each[-1]) for each in talib_functions.run(self._spec, columns))

    def reason(self) -> int:
        """Give what `indicators` gives."""
        return self._reason


class RunningDelta:
    """CVD: what takers bought less what they sold since the segment began; `columns` as in `of_bars.READS`."""

    reads_rows = False

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec

    def opened(self, columns: Columns) -> State | None:
        """Add up what there is."""
        return _Delta(self.at_end(columns)[0])

    def at_end(self, columns: Columns) -> tuple[float, ...]:
        """Add up from the first row to the newest, in this order."""
        bought, volume = columns
        return (float(np.cumsum(flow_rows({"taker_buy_volume": bought, "volume": volume}).delta)[-1]),)

    def reason(self) -> int:
        """No status: sums are what they are."""
        return 0


class _Delta:
    def __init__(self, total: float) -> None:
        self._total = total

    def update(self, bought: float, volume: float) -> float:
        self._total = self.peek(bought, volume)
        return self._total

    def peek(self, bought: float, volume: float) -> float:
        bought = min(bought, volume)
        return self._total + (bought - (volume - bought))


class Window:
    """A function that is computed anew from its newest rows, which `rows` holds, the one to be computed too."""

    reads_rows = True

    def __init__(self, spec: FeatureSpec, names: Sequence[str], rows: Rows, places: Sequence[int]) -> None:
        self._spec = spec
        self._names = names
        self._rows = rows
        self._places = list(places)
        self._count = spec.lookback + 1
        self._reason = reason_of_no_number(spec)

    def opened(self, columns: Columns) -> State | None:
        """Give this itself: its state are the rows."""
        return self

    def update(self, *_: float) -> Answer:
        """Compute the newest row."""
        rows = self._rows.last(self._count)
        outputs = self.at_end([rows[place] for place in self._places])
        return outputs if len(outputs) > 1 else outputs[0]

    peek = update

    def at_end(self, columns: Columns) -> tuple[float, ...]:
        """Compute the newest row of these."""
        if self._spec.name not in FUNCTIONS:
            newest = [np.ascontiguousarray(each[-self._count :]) for each in columns]
            return tuple(float(each[-1]) for each in talib_functions.run(self._spec, newest))
        flow = flow_rows({name: each[-self._count :] for name, each in zip(self._names, columns, strict=True)})
        outputs, reasons = FUNCTIONS[self._spec.name](flow, _NO_STARTS, self._spec.arguments)
        self._reason = int(reasons[-1])
        return tuple(float(each[-1]) for each in outputs)

    def reason(self) -> int:
        """Give the status that came with the newest row."""
        return self._reason


_NO_STARTS: NDArray[np.int64] = np.zeros(0, np.int64)


def kernel_of(spec: FeatureSpec, names: Sequence[str], rows: Rows, places: Sequence[int]) -> Kernel:
    """Give the kernel of a feature that reads the columns `names`, which `rows` holds at `places`."""
    if is_windowed(spec):
        return Window(spec, names, rows, places)
    return RunningDelta(spec) if spec.name == "CVD" else Stream(spec)


@cache
def _streams() -> Any:
    import_module("talib.stream")
    return import_module("talib")
