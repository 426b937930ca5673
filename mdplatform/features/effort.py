"""Effort: how many steps the few features take that look at a whole window anew at each row.

They take time in proportion to rows × window, where all others take it in proportion to rows: so it is they that a
request can make arbitrarily dear. A step takes 1 to 20 ns.
"""

from __future__ import annotations

from mdplatform.features.spec import FORMULA, FeatureSpec

_ANEW = frozenset({"AVGDEV", "CCI", "IMI", "PERCENTILE", "PERCENTRANK", "VHF"})


def steps(spec: FeatureSpec, rows: int) -> int:
    """Give about how many steps so many rows take, with those of the parts of a formula; 0 for all other features.

    >>> from mdplatform.features import parse_feature
    >>> steps(parse_feature("CCI(100)"), 1000), steps(parse_feature("EMA(100)"), 1000)
    (99000, 0)
    """
    if spec.name == FORMULA:
        from mdplatform.features.formula.program import compiled

        program = compiled(str(spec))
        return sum(steps(each, rows + program.rows) for each in program.features)
    window = spec.lookback + spec.settle
    if spec.name == "CORRELATION" and spec.arguments["method"] == "spearman":
        return (rows + 2 * window) * window  # it begins up to two windows before its first row
    return rows * window if spec.name in _ANEW else 0
