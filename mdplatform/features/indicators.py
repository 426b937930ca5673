"""One technical indicator on the arrays of bars: segments without a hole, the library, and a status for every row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features import talib_functions
from mdplatform.features.bar_arrays import BarArrays
from mdplatform.features.degenerate import find_made_up
from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO, UNSETTLED
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats

_TRANSFORMS = "Math Transform"  # these divide nothing: what they give no number for is outside their domain or range


def evaluate_one(spec: FeatureSpec, bars: BarArrays) -> tuple[list[Floats], NDArray[np.int8]]:
    """Give the outputs of `spec` in each row of `bars` (NaN where null), and the status of each row."""
    rows, lookback = len(bars.open_time), spec.lookback
    holes = bars.holes(spec.inputs, spec.anchor)
    columns = [bars.columns[name] for name in spec.inputs]
    if holes.is_whole and rows > lookback:
        outputs = talib_functions.run(spec, columns)
    else:
        outputs = [np.full(rows, np.nan) for _ in spec.definition.outputs]
        for segment in holes.segments:
            if segment.stop - segment.start > lookback:
                inside = slice(segment.start, segment.stop)
                parts = talib_functions.run(spec, [each[inside] for each in columns])
                for output, part in zip(outputs, parts, strict=True):
                    output[inside] = part
    statuses = holes.statuses_after(lookback, None if spec.anchor else spec.settle)
    refused = find_made_up(spec, bars, outputs)
    for output in outputs:
        if not np.isfinite(output[lookback:].sum()):  # which is quicker than to look at each
            refused.append((~np.isfinite(output), reason_of_no_number(spec)))
    for where, reason in refused:
        lost = where & (statuses <= UNSETTLED)
        if lost.any():
            statuses = np.where(lost, np.int8(reason), statuses)
            for output in outputs:
                output[lost] = np.nan
    return outputs, statuses


def reason_of_no_number(spec: FeatureSpec) -> int:
    """Give the status of a row for which the library gives no finite number."""
    return DEGENERATE if spec.definition.group == _TRANSFORMS else DIVISION_BY_ZERO
