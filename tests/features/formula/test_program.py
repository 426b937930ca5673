"""Compiled formulas: columns and single rows against brute force, and the laws of windows."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidFormula, InvalidTable, UnknownInput
from mdplatform.features import parse_feature
from mdplatform.features.formula import blocks
from mdplatform.features.formula.operations import OPERATIONS
from mdplatform.features.formula.parser import Parser, no_composites
from mdplatform.features.formula.program import Program, compiled, program_of
from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO, GAP, INSUFFICIENT_HISTORY, SETTLED, UNSETTLED

from . import oracle

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def program(text: str) -> Program:
    return program_of(Parser(text, {}, no_composites).parse(), text)


def program_of_tree(tree: oracle.Tree) -> Program:
    try:
        return program(oracle.written(tree))
    except InvalidFormula:  # what consists of numbers alone, or has no finite value
        assume(False)
        raise


@given(oracle.exact_trees(), oracle.columns_of())
@quick
def test_columns_are_what_brute_force_gives_to_the_bit(tree: oracle.Tree, columns: oracle.Columns) -> None:
    made = program_of_tree(tree)
    values, statuses = made.columns(oracle.as_arrays(columns))
    wanted, why = oracle.expected(tree, columns)
    np.testing.assert_array_equal(statuses, why)
    np.testing.assert_array_equal(values, wanted)
    assert not np.signbit(values[values == 0]).any()


@given(oracle.smooth_trees(), oracle.columns_of())
@quick
def test_what_is_approximated_is_near_to_what_brute_force_gives(tree: oracle.Tree, columns: oracle.Columns) -> None:
    made = program_of_tree(tree)
    values, statuses = made.columns(oracle.as_arrays(columns))
    wanted, why = oracle.expected(tree, columns)
    np.testing.assert_array_equal(statuses, why)
    greatest = np.nanmax(np.abs(wanted), initial=1.0)
    np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-12 * greatest**2)


@given(st.one_of(oracle.exact_trees(), oracle.smooth_trees()), oracle.columns_of())
@quick
def test_a_row_by_itself_has_the_same_bits(tree: oracle.Tree, columns: oracle.Columns) -> None:
    made = program_of_tree(tree)
    arrays = oracle.as_arrays(columns)
    values, statuses = made.columns(arrays)
    for row in range(made.rows, len(values)):
        newest = {
            name: (each[0][row - made.rows : row + 1], each[1][row - made.rows : row + 1])
            for name, each in arrays.items()
        }
        value, status = made.row(newest)
        assert status == statuses[row]
        assert (value == values[row]) or (math.isnan(value) and math.isnan(values[row]))
        if made.rows == 0 and all(each[1][row] == SETTLED for each in arrays.values()):
            assert made.row({name: float(each[0][row]) for name, each in arrays.items()})[1] == status
            np.testing.assert_array_equal(
                made.row({name: float(each[0][row]) for name, each in arrays.items()})[0], value
            )


@pytest.mark.parametrize(
    "text", ["exp(close)*open", "log(close+5)", "(close+4)**0.37", "close**7/open**-3", "sqrt(close+9)"]
)
def test_what_a_library_approximates_has_the_same_bits_in_rows_and_columns(text: str) -> None:
    random = np.random.default_rng(1)
    inputs = {name: random.normal(0, 1.3, 4001) for name in ("open", "close")}
    made = program(text)
    values, _ = made.columns({name: inputs[name] for name in made.inputs})
    rows = [made.row({name: float(inputs[name][row]) for name in made.inputs})[0] for row in range(4001)]
    np.testing.assert_array_equal(values, rows)
    shifted, _ = made.columns({name: inputs[name][3:] for name in made.inputs})
    np.testing.assert_array_equal(shifted, values[3:])


@given(oracle.exact_trees(), oracle.columns_of(), st.integers(1, 5))
@quick
def test_the_size_of_a_block_changes_nothing(tree: oracle.Tree, columns: oracle.Columns, rows: int) -> None:
    made = program_of_tree(tree)
    arrays = oracle.as_arrays(columns)
    with pytest.MonkeyPatch.context() as patch:
        whole = made.columns(arrays)
        patch.setattr(blocks, "BLOCK", rows)
        pieces = made.columns(arrays)
    np.testing.assert_array_equal(whole, pieces)


@given(st.one_of(oracle.exact_trees(), oracle.smooth_trees()), oracle.columns_of())
@quick
def test_history_before_what_a_formula_looks_at_changes_no_bit(tree: oracle.Tree, columns: oracle.Columns) -> None:
    made = program_of_tree(tree)
    arrays = oracle.as_arrays(columns)
    values, statuses = made.columns(arrays)
    for start in range(1, len(values) - made.rows):
        later = made.columns({name: (each[0][start:], each[1][start:]) for name, each in arrays.items()})
        np.testing.assert_array_equal(later[0][made.rows :], values[start + made.rows :])
        np.testing.assert_array_equal(later[1][made.rows :], statuses[start + made.rows :])


@given(oracle.exact_trees(), oracle.columns_of())
@quick
def test_the_inputs_are_not_written_to(tree: oracle.Tree, columns: oracle.Columns) -> None:
    made = program_of_tree(tree)
    arrays = oracle.as_arrays(columns)
    for values, statuses in arrays.values():
        values.flags.writeable = statuses.flags.writeable = False
    result, _ = made.columns(arrays)
    assert not any(np.shares_memory(result, values) for values, _ in arrays.values())


@pytest.mark.parametrize("length", [2, 3, 7, 20, 31, 64, 100, 1000])
def test_windows_are_those_of_the_textbook(length: int) -> None:
    values = 60_000 + np.cumsum(np.random.default_rng(length).normal(0, 5, 2500))
    windows = np.lib.stride_tricks.sliding_window_view(values, length)
    for kind, wanted in (
        ("sum", windows.sum(axis=1)),
        ("mean", windows.mean(axis=1)),
        ("std", windows.std(axis=1)),
        ("rank", (windows <= windows[:, -1:]).mean(axis=1)),
        ("zscore", (values[length - 1 :] - windows.mean(axis=1)) / windows.std(axis=1)),
    ):
        got, statuses = program(f"{kind}(close, {length})").columns({"close": values})
        assert (statuses[: length - 1] == INSUFFICIENT_HISTORY).all()
        assert (statuses[length - 1 :] == SETTLED).all()
        np.testing.assert_allclose(got[length - 1 :], wanted, rtol=1e-9, atol=1e-9)


def test_ranks_of_ties_are_those_of_pandas_in_short_and_long_windows() -> None:
    import pandas as pd

    values = np.random.default_rng(4).integers(0, 9, 700).astype(float)
    for length in (2, 13, 48, 49, 300):
        got, _ = program(f"rank(close,{length})").columns({"close": values})
        np.testing.assert_allclose(got, pd.Series(values).rolling(length).rank(pct=True), rtol=1e-12)


def test_one_bad_print_is_forgotten_when_it_has_left_the_window() -> None:
    values = np.random.default_rng(5).normal(100, 1, 400)
    spoilt = values.copy()
    spoilt[100] = 1e14
    for text in ("sum(close,20)", "mean(close,20)", "std(close,20)", "zscore(close,20)"):
        clean, _ = program(text).columns({"close": values})
        got, _ = program(text).columns({"close": spoilt})
        np.testing.assert_array_equal(got[120:], clean[120:])


def test_equal_values_have_no_deviation_at_all() -> None:
    values = np.full(100, 0.1)
    for length in (3, 7, 20, 33):
        assert program(f"std(close,{length})").columns({"close": values})[0][length - 1 :].tolist() == [0.0] * (
            101 - length
        )
        assert program(f"mean(close,{length})").columns({"close": values})[0][-1] == 0.1
        _, statuses = program(f"zscore(close,{length})").columns({"close": values})
        assert (statuses[length - 1 :] == DEGENERATE).all()


@pytest.mark.parametrize(
    ("text", "close", "status"),
    [
        ("1/close", 0.0, DIVISION_BY_ZERO),
        ("close/close", 0.0, DEGENERATE),
        ("close/(close-3)", 3.0, DIVISION_BY_ZERO),
        ("0/close", 0.0, DEGENERATE),
        ("1/(1/close)", 0.0, DIVISION_BY_ZERO),
        ("1/(close*1e200*1e200)", 1.0, DEGENERATE),
        ("log(close)", 0.0, DEGENERATE),
        ("log(close)", -1.0, DEGENERATE),
        ("sqrt(close)", -1.0, DEGENERATE),
        ("exp(close)", 1000.0, DEGENERATE),
        ("1/exp(close)", 1000.0, DEGENERATE),
        ("close**0.5", -1.0, DEGENERATE),
        ("close**-0.5", 0.0, DIVISION_BY_ZERO),
        ("close**-2", 0.0, DIVISION_BY_ZERO),
        ("close**64", 1e300, DEGENERATE),
        ("where(close==0,0,1/close)", 0.0, SETTLED),
        ("where(close!=0,1/close,2)", 0.0, SETTLED),
        ("close > 1/close", 0.0, DIVISION_BY_ZERO),
        ("max(1/close,5)", 0.0, DIVISION_BY_ZERO),
        ("close", math.inf, GAP),
        ("close < 1", math.nan, GAP),
        ("exp(close)", -1000.0, SETTLED),
    ],
)
def test_what_has_no_number_says_why_in_columns_and_in_rows(text: str, close: float, status: int) -> None:
    made = program(text)
    for rows in (1, 40_000):
        column = np.ones(rows)
        column[-1] = close
        values, statuses = made.columns({"close": column})
        assert statuses[-1] == status
        assert math.isnan(values[-1]) == (status > UNSETTLED)
        assert (statuses[:-1] <= UNSETTLED).all() or "1e200" in text
    value, why = made.row({"close": close})
    assert why == status
    assert math.isnan(value) == (status > UNSETTLED)


def test_of_two_reasons_the_first_of_the_list_is_told() -> None:
    arrays = {
        "close": (np.array([np.nan]), np.array([8], np.int8)),
        "open": (np.array([np.nan]), np.array([4], np.int8)),
    }
    for text in ("close+open", "open+close", "max(open,close)", "close*2-open"):
        assert program(text).columns(arrays)[1].tolist() == [4]
    assert program("where(close,open,1)").columns(arrays)[1].tolist() == [8]


def test_an_empty_table_gives_an_empty_answer() -> None:
    for text in ("close*2", "mean(close,5)+lag(close,2)", "rank(close,100)", "close"):
        values, statuses = program(text).columns({"close": np.empty(0)})
        assert values.shape == statuses.shape == (0,)


def test_inputs_that_are_missing_or_unequal_are_refused() -> None:
    with pytest.raises(UnknownInput, match="close"):
        program("close*2").columns({"open": np.ones(3)})
    with pytest.raises(UnknownInput, match="close"):
        program("close*2").row({"open": 1.0})
    with pytest.raises(InvalidTable, match="unequal"):
        program("close*open").columns({"open": np.ones(3), "close": np.ones(2)})


def test_a_part_that_is_used_twice_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = program(
        "log(close)*2 + log( close ) - mean(log(close),3) + (open+close)/(close+open) + zscore(log(close), 3)"
    )
    kinds = [step.kind for step in made.layout.steps]
    assert kinds.count("log") == 1
    assert kinds.count("mean") == 1
    assert sorted(made.inputs) == ["close", "open"]
    assert [step.kind for step in program("(open+close)/(close+open)").layout.steps] == ["add", "div"]


def test_lookback_and_settle_add_up_along_the_deepest_path() -> None:
    rsi, ema = parse_feature("RSI"), parse_feature("EMA(close,50)")
    made = compiled(str(parse_feature("mean(lag(RSI, 3), 10) + EMA(close, 50)")))
    assert made.rows == 12
    assert made.lookback == max(rsi.lookback + 12, ema.lookback)
    assert made.lookback + made.settle == max(rsi.lookback + rsi.settle + 12, ema.lookback + ema.settle)


def test_long_windows_take_bounded_time() -> None:
    values = np.random.default_rng(0).normal(size=120_000)
    program("rank(close,100)").columns({"close": values[:200]})  # compiles the counting
    began = time.perf_counter()
    program("rank(close,100000)+std(close,100000)+lag(close,100000)").columns({"close": values})
    assert time.perf_counter() - began < 5


def test_every_operation_of_the_language_is_tried_by_brute_force() -> None:
    assert set(OPERATIONS) <= set(oracle._OPERATIONS) | {"where"}


@pytest.mark.parametrize("value", ["x", [], 10**400, [[1.0], [2.0]], ["x"], object(), {}, (1.0, [0, 0]), "x" * 10_000])
@pytest.mark.parametrize("text", ["close*2", "lag(close,1)*2"])
def test_what_is_no_number_is_refused_for_a_row_with_one_error(text: str, value: object) -> None:
    with pytest.raises(InvalidTable) as caught:
        compiled(text).row({"close": value})
    assert len(str(caught.value)) < 250
    assert "close" in str(caught.value)
