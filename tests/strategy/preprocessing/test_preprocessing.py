"""The pipeline: its schema, its file, and scikit-learn around it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import check_estimator

from mdplatform.errors import InvalidPreprocessing, PlatformError, SchemaMismatch
from mdplatform.strategy.preprocessing import (
    Columnwise,
    FractionalDifference,
    LogReturns,
    MissingData,
    Preprocessing,
    PurgedKFold,
    RobustZScore,
    RollingZScore,
    Step,
    WalkForward,
    Windows,
    Winsorize,
    store,
)

from .rows import RSI, rows

Python = Callable[[str], Popen[str]]


def fitted() -> Preprocessing:
    steps = [
        ("returns", LogReturns(columns=["close"])),
        ("missing", MissingData("fill", by_symbol=True)),
        ("clipped", Winsorize()),
        ("scaled", RobustZScore(by_symbol=True)),
        ("rolling", RollingZScore(5, columns=["close"])),
        ("memory", FractionalDifference(0.4, 0.05, columns=[RSI])),
        ("windows", Windows(4)),
    ]
    return Preprocessing(steps).fit(rows(120, ("BTCUSDT", "ETHUSDT")))


# The schema.


def test_the_schema_tells_columns_types_features_and_the_timeframe() -> None:
    from mdplatform.features import parse_feature

    schema = fitted().schema
    assert schema.timeframe == "1h"
    assert schema.names == ("close", RSI)
    assert [each.dtype for each in schema.columns] == ["float64", "float64"]
    assert schema.columns[1].feature == parse_feature(RSI).id
    assert (schema.has_symbols, schema.has_times) == (True, True)
    bare = Preprocessing([Windows(2)]).fit(np.ones((3, 1))).schema
    assert bare.columns[0].feature == ""
    assert (bare.has_symbols, bare.has_times) == (False, False)


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        (lambda frame: frame.drop(RSI), RSI, r"missing: RSI\(timeperiod=14\)\). Fitted on, in this order: close, RSI"),
        (lambda frame: frame.with_columns(pl.lit(1.0).alias("ATR")), "ATR", r"extra: ATR\)"),
        (lambda frame: frame.rename({RSI: "RSI(timeperiod=7)"}), RSI, r"missing: .*14\); extra: .*7\)\)"),
        (
            lambda frame: frame.select("symbol", "open_time", "close_time", RSI, "close"),
            RSI,
            r"another order \(column 1 was close\)",
        ),
        (lambda frame: frame.cast({"close": pl.Float32}), "close", r"of another type: 'float32'. Fitted on: float64"),
        (
            lambda frame: frame.with_columns(pl.col("close_time") - pl.duration(minutes=45)),
            "timeframe",
            r"another timeframe: '15m'. Fitted on: 1h",
        ),
        (
            lambda frame: frame.with_columns(pl.lit("4h").alias("timeframe")),
            "timeframe",
            r"another timeframe: '4h'. Fitted on: 1h",
        ),
        (lambda frame: frame.drop("symbol"), "symbol", r"^symbol: The rows name no symbols. Fitted on rows that tell"),
        (lambda frame: frame.drop("open_time"), "open_time", r"^open_time: The rows tell no times. Fitted on rows"),
        (lambda frame: frame.row(0, named=True) | {"symbol": None}, "symbol", r"The rows name no symbols"),
        (lambda frame: frame.row(0, named=True) | {"open_time": None}, "open_time", r"The rows tell no times"),
        (lambda frame: frame.to_pandas().drop(columns="open_time"), "open_time", r"The rows tell no times"),
        (lambda frame: np.ones((4, 2)), "symbol", r"The rows name no symbols"),
    ],
)
def test_live_rows_of_another_schema_are_refused_with_what_differs(
    change: Callable[[pl.DataFrame], pl.DataFrame], field: str, told: str
) -> None:
    preprocessing, live = fitted(), change(rows(3))
    for take in (preprocessing.transform, preprocessing.live().update, preprocessing.live().peek):
        with pytest.raises(SchemaMismatch, match=told) as refused:
            take(live)
        assert refused.value.field == field


def test_a_mapping_lacks_no_column_and_has_none_more_but_in_any_order() -> None:
    preprocessing = Preprocessing([RobustZScore()]).fit(rows(50, missing=0))
    row = rows(1, missing=0).row(0, named=True)
    turned = dict(reversed(row.items()))
    assert preprocessing.transform(turned)["close"] == preprocessing.transform(row)["close"]
    assert preprocessing.transform({**row, RSI: None})[RSI] is None
    for wrong, told in (({**row, "extra": 1.0}, "extra: extra"), ({"close": 1.0}, "missing: RSI")):
        with pytest.raises(SchemaMismatch, match=told):
            preprocessing.transform(wrong)


def test_rows_may_tell_more_than_those_that_were_fitted(tmp_path: Path) -> None:
    frame = rows(30, missing=0)
    Preprocessing([LogReturns()], timeframe="1h").fit(frame.select("close", RSI)).save(tmp_path / "model.json")
    loaded = Preprocessing.load(tmp_path / "model.json")
    assert loaded.transform(frame)["close"].equals(loaded.transform(frame.select("close", RSI))["close"])


def test_what_is_loaded_still_knows_that_rows_told_symbols_and_times(tmp_path: Path) -> None:
    fitted().save(tmp_path / "model.json")
    row = rows(1).row(0, named=True)
    for lacking in ("symbol", "open_time"):
        with pytest.raises(SchemaMismatch, match=f"^{lacking}: The rows") as refused:
            Preprocessing.load(tmp_path / "model.json").live().update({**row, lacking: None})
        assert refused.value.field == lacking


def test_rows_of_several_timeframes_are_refused() -> None:
    frame = rows(4).with_columns(pl.Series("timeframe", ["1h", "1h", "4h", "4h"]))
    with pytest.raises(InvalidPreprocessing, match=r"^timeframe: The rows are of several timeframes: '1h, 4h'"):
        fitted().transform(frame)


# Fitting.


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Preprocessing([]), r"^steps: A preprocessing needs a step"),
        (lambda: Preprocessing([Ridge()]), r"^steps\[0\]: This is no step of preprocessing: 'Ridge'"),
        (lambda: Preprocessing([Windows(2), RobustZScore()]), r"^steps: Windows are made by the last step"),
        (
            lambda: Preprocessing([("a", Windows(2)), ("a", Windows(3))]),
            r"^steps\[1\]: Give each step a name of its own",
        ),
        (lambda: Preprocessing([("a__b", Windows(2))]), r"^steps\[0\]: Give each step a name"),
        (lambda: Preprocessing([Windows(2)], timeframe="1H"), r"'1H'\. Allowed: 1m 3m"),
        (lambda: Preprocessing([Windows(2)], timeframe="4h"), r"^timeframe: .*another timeframe: '1h'. Expected: 4h"),
        (lambda: Preprocessing([("z", RollingZScore(0))]), r"^z\.window: Out of range"),
    ],
)
def test_a_pipeline_that_makes_no_sense_is_refused(make: Callable[[], Preprocessing], told: str) -> None:
    with pytest.raises(PlatformError, match=told):
        make().fit(rows(20))


def test_training_ends_where_it_is_told_to() -> None:
    frame = rows(50)
    cut = frame["available_at"][29]
    ours = Preprocessing([MissingData(), RobustZScore()]).fit(frame, until=cut.isoformat())
    theirs = Preprocessing([MissingData(), RobustZScore()]).fit(frame[:30])
    for mine, other in zip(ours.named_steps.values(), theirs.named_steps.values(), strict=True):
        assert mine.state() == other.state()
    for until, told in (("soon", "until: This is no instant"), ("2020-01-01", "There are no rows to fit on")):
        with pytest.raises(InvalidPreprocessing, match=told):
            ours.fit(frame, until=until)
    with pytest.raises(InvalidPreprocessing, match="was not fitted"):  # what fails is not half fitted
        ours.transform(frame)
    with pytest.raises(InvalidPreprocessing, match=r"^until: The rows tell no times"):
        ours.fit(np.ones((3, 2)), until="2025-01-01")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scaled__by_symbol": False}, "scaled"),
        ({"scaled__columns": ["close"]}, "scaled"),
        ({"rolling__window": 6}, "rolling"),
        ({"windows__length": 9}, "windows"),
        ({"across_holes": True}, ""),
    ],
)
def test_what_was_changed_after_it_was_fitted_has_to_be_fitted_again(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    preprocessing, frame = fitted(), rows(60, ("BTCUSDT", "ETHUSDT"))
    preprocessing.set_params(**change)
    for use in (
        lambda: preprocessing.transform(frame),
        lambda: preprocessing.live(),
        lambda: preprocessing.save(tmp_path / "model.json"),
        lambda: preprocessing.get_feature_names_out(),
    ):
        with pytest.raises(InvalidPreprocessing, match=r"Parameters were changed .* Fit again") as refused:
            use()
        assert refused.value.field == field
    assert not (tmp_path / "model.json").exists()
    assert len(preprocessing.fit_transform(frame)) == 120


def test_an_attribute_that_was_set_is_noticed_and_counts_no_more_once_it_is_what_it_was(tmp_path: Path) -> None:
    preprocessing, frame = fitted(), rows(60, ("BTCUSDT", "ETHUSDT"))
    expected = preprocessing.transform(frame)
    step = preprocessing.named_steps["rolling"]
    was, step.window = step.window, step.window + 1
    for use in (lambda: preprocessing.transform(frame), lambda: preprocessing.save(tmp_path / "model.json")):
        with pytest.raises(InvalidPreprocessing, match=r"^rolling: Parameters were changed .* Fit again"):
            use()
    step.window = was
    assert preprocessing.transform(frame).values.tobytes() == expected.values.tobytes()
    preprocessing.timeframe = "4h"
    with pytest.raises(InvalidPreprocessing, match="Parameters were changed"):
        preprocessing.live()


def test_a_step_that_was_fitted_by_itself_or_on_other_columns_makes_the_whole_unusable(tmp_path: Path) -> None:
    preprocessing, frame = fitted(), rows(60, ("BTCUSDT", "ETHUSDT"))
    preprocessing.named_steps["scaled"].feature_names_in_ = np.array(["close", "other"], dtype=object)
    with pytest.raises(SchemaMismatch, match="other"):
        preprocessing.save(tmp_path / "model.json")
    preprocessing = fitted()
    preprocessing.named_steps["scaled"].fit(frame)
    for use in (lambda: preprocessing.transform(frame), lambda: preprocessing.save(tmp_path / "model.json")):
        with pytest.raises(InvalidPreprocessing, match=r"^scaled: A step was fitted by itself"):
            use()
    assert not (tmp_path / "model.json").exists()


def test_rows_of_bars_that_still_form_are_neither_learned_from_nor_transformed() -> None:
    frame = rows(30, missing=0).with_columns(pl.Series("is_closed", [True] * 29 + [False]))
    for step in (RobustZScore(), Preprocessing([RobustZScore()])):
        with pytest.raises(InvalidPreprocessing, match=r"^is_closed: A bar still forms"):
            step.fit(frame)
        step.fit(frame[:29])
        with pytest.raises(InvalidPreprocessing, match=r"^is_closed: A bar still forms"):
            step.transform(frame)
        assert len(step.transform(frame.filter("is_closed"))) == 29


# The file.


def test_what_is_saved_is_loaded_with_every_bit(tmp_path: Path) -> None:
    preprocessing, frame = fitted(), rows(60, ("BTCUSDT", "ETHUSDT"), seed=9)
    path = tmp_path / "new" / "model.json"
    preprocessing.save(path)
    loaded = Preprocessing.load(path)
    assert loaded.schema == preprocessing.schema
    ours, theirs = loaded.transform(frame), preprocessing.transform(frame)
    assert ours.values.tobytes() == theirs.values.tobytes()
    assert np.array_equal(ours.mask, theirs.mask)
    assert repr(loaded.named_steps) == repr(preprocessing.named_steps)
    assert [each.name for each in path.parent.iterdir()] == ["model.json"]
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_every_step_can_be_saved() -> None:
    import mdplatform.strategy.preprocessing as room

    steps = {
        name: each
        for name, each in vars(room).items()
        if isinstance(each, type) and issubclass(each, Step) and not inspect.isabstract(each)
    }
    assert steps == store.STEPS


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    preprocessing = fitted()
    preprocessing.save(path)
    kept = path.read_bytes()

    class Own(Columnwise):
        def __init__(self) -> None:
            """Have no parameters."""

        def _compute(self, values: Any, fitted: Any, first: int) -> Any:
            return values

    with pytest.raises(InvalidPreprocessing, match=r"^steps: Only the platform's own steps can be saved: 'Own'"):
        Preprocessing([Own()]).fit(rows(5)).save(path)
    with pytest.raises(InvalidPreprocessing, match="was not fitted"):
        Preprocessing([Windows(3)]).save(path)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]


def altered(body: dict[str, Any]) -> str:
    body.pop("checksum")
    return json.dumps({**body, "checksum": store._checksum(body)})


def with_step(body: dict[str, Any], **changes: Any) -> str:
    body["steps"][3].update(changes)
    return altered(body)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda body: "", r"The file cannot be read"),
        (lambda body: json.dumps(body)[:-40], r"The file cannot be read"),
        (lambda body: "[]", r"^format: The file holds no preprocessing"),
        (lambda body: json.dumps({**body, "version": 1}), r"^version: The file has another layout: 1"),
        (lambda body: json.dumps({**body, "across_holes": True}), r"^checksum: The file was changed or damaged"),
        (lambda body: with_step(body, step="os.system"), r"^steps\[3\]\.step: Unknown step: 'os.system'"),
        (lambda body: with_step(body, parameters={"scal": "mad"}), r"^steps\[3\]: Unknown parameter: 'scal'"),
        (lambda body: with_step(body, parameters={"scale": "std"}), r"^steps\[3\]\.scale: Unknown scale"),
        (
            lambda body: with_step(body, fitted={"columns_in": ["a"], "learned": {"": {"centre": [1.0, 2.0]}}}),
            r"^steps\[3\]\.learned\.centre: A finite number is needed for each of 1",
        ),
        (lambda body: altered({**body, "steps": [{"name": "x"}]}), r"^steps\[0\]: The file is not as it was written"),
        (
            lambda body: altered({key: each for key, each in body.items() if key != "schema"}),
            r"The file is not as it was written \(.*`schema`",
        ),
    ],
)
def test_a_file_that_is_none_or_was_changed_is_refused(
    tmp_path: Path, break_it: Callable[[dict[str, Any]], str], told: str
) -> None:
    path = tmp_path / "model.json"
    fitted().save(path)
    path.write_text(break_it(json.loads(path.read_text())))
    with pytest.raises(PlatformError, match=told):
        Preprocessing.load(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidPreprocessing, match=r"There is no such file: '.*model.json'"):
        Preprocessing.load(tmp_path / "model.json")


def test_a_feature_that_is_computed_otherwise_now_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    fitted().save(path)
    body = json.loads(path.read_text())
    body["schema"]["columns"][1]["feature"] = "0123456789abcdef"  # as another version of TA-Lib would have made it
    path.write_text(altered(body))
    with pytest.raises(SchemaMismatch, match="is not computed as it was when this was fitted") as refused:
        Preprocessing.load(path)
    assert refused.value.field == RSI


# scikit-learn.


def test_the_steps_work_in_scikit_learns_pipeline_and_its_searches() -> None:
    random = np.random.default_rng(4)
    prices = np.exp(np.cumsum(random.normal(0, 0.01, (200, 2)), axis=0))
    target = random.normal(size=200)
    steps = [
        ("returns", LogReturns()),
        ("scale", RobustZScore()),
        ("fill", MissingData()),
        ("windows", Windows(3, True)),
    ]
    pipeline = Pipeline([*steps, ("model", Ridge())])
    copied = clone(pipeline)
    assert copied["scale"] is not pipeline["scale"]
    assert pipeline.fit(prices, target).predict(prices).shape == (200,)
    assert (
        len(pipeline[:-1].get_feature_names_out()) == pipeline["model"].n_features_in_ == 12
    )  # arrays have no names, so that masks are columns
    search = GridSearchCV(pipeline, {"windows__length": [2, 4], "scale__scale": ["iqr"]}, cv=PurgedKFold(3))
    assert search.fit(prices, target).best_params_["windows__length"] in (2, 4)
    own = Preprocessing([(name, clone(step)) for name, step in steps])
    nested = Pipeline([("prepared", own), ("model", Ridge())])
    search = GridSearchCV(nested, {"prepared__windows__length": [2]}, cv=WalkForward(2))
    assert search.fit(prices, target).best_estimator_["model"].n_features_in_ == 4  # masks are no features of windows
    assert own.get_params()["windows__length"] == 3  # scikit-learn worked on clones
    assert clone(own).get_params()["returns__periods"] == 1


@pytest.mark.filterwarnings("ignore:Estimator Winsorize", "ignore:Skipping check")
def test_scikit_learns_own_checks_of_a_transformer_hold_but_for_the_words_of_errors() -> None:
    told = check_estimator(Winsorize(), on_fail=None)
    failed = {each["check_name"] for each in told if each["status"] == "failed"}
    in_other_words = {
        "check_complex_data", "check_estimator_sparse_array", "check_estimator_sparse_matrix",
        "check_estimators_empty_data_messages", "check_fit2d_predict1d", "check_n_features_in_after_fitting",
    }  # fmt: skip
    assert failed <= {*in_other_words, "check_dtype_object"}  # numbers that are objects are refused
    assert len(told) > 35


def test_a_pipeline_of_frames_is_that_of_its_own() -> None:
    frame = rows(100, ("BTCUSDT", "ETHUSDT"))
    steps = [LogReturns(columns=["close"]), MissingData("drop"), RollingZScore(5), Windows(4)]
    own = Preprocessing(steps, across_holes=True).fit_transform(frame)
    theirs = Pipeline([(str(at), clone(step)) for at, step in enumerate(steps)]).fit_transform(frame)
    assert own.values.tobytes() == theirs.values.tobytes()


def test_neither_scikit_learn_nor_a_library_of_frames_is_needed(python: Python) -> None:
    script = """
    import sys
    sys.modules["sklearn"] = None
    import numpy as np
    from mdplatform.strategy.preprocessing import *
    values = np.exp(np.random.default_rng(1).normal(size=(50, 2)))
    steps = [LogReturns(), MissingData("drop"), Winsorize(), RobustZScore(), RollingZScore(3), Windows(4)]
    for step in steps[:1] + steps[2:]:
        step.fit_transform(values)
    print([name for name in ("polars", "pandas", "dagster", "redis") if name in sys.modules])
    print(Preprocessing(steps).fit_transform(values).values.shape, [len(each) for each in PurgedKFold(2).split(values)])
    """
    assert python(script).communicate()[0].splitlines() == ["[]", "(49, 4, 2) [2, 2]"]
