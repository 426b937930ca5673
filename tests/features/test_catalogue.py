"""The standing catalogue, and a user's own in its place."""

from datetime import timedelta
from pathlib import Path

import pytest

from mdplatform.errors import InvalidFeature, InvalidSetting, PlatformError, UnknownFeature, UnknownTimeframe
from mdplatform.features import parse_feature, standing_catalogue
from mdplatform.features.graph import extra_rows
from mdplatform.market.timeframe import Timeframe


def test_the_standing_catalogue_is_complete() -> None:
    catalogue = standing_catalogue()
    assert [each.value for each in catalogue.timeframes] == ["5m", "15m", "1h", "4h", "1d"]
    assert len(catalogue.features) >= 20
    for wanted in ["RSI", "MACD", "BBANDS", "ATR", "ADX", "STDDEV(20)", "SMA(20)", "EMA(50)", "OBV(anchor=month)"]:
        assert parse_feature(wanted) in catalogue.features


def test_its_text_states_every_parameter() -> None:
    text = Path(__file__).resolve().parents[2].joinpath("mdplatform", "features", "catalogue.yaml").read_text()
    written = [line.strip()[2:] for line in text.splitlines() if line.startswith("  - ")]
    assert written == [str(spec) for spec in standing_catalogue().features]


def test_history_is_what_the_slowest_feature_needs() -> None:
    catalogue = standing_catalogue()
    rows = max(extra_rows([each], "1d") for each in catalogue.features)
    assert rows == extra_rows(["ADX(14)"], "1d")
    assert catalogue.history("1d") == timedelta(days=rows)
    assert catalogue.history(Timeframe.H1) == timedelta(hours=rows)  # which is more than OBV's month


def test_a_file_stands_in_for_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("timeframes: [1h, 1w, 1h]\nfeatures:\n - rsi(period=7)\n - {name: RSI, parameters: {period: 7}}\n")
    catalogue = standing_catalogue(path)
    assert catalogue.timeframes == (Timeframe.H1, Timeframe.W1)
    assert [str(each) for each in catalogue.features] == ["RSI(timeperiod=7)"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidSetting),
        ("just words", InvalidSetting),
        ("timeframes: [1h]", InvalidSetting),
        ("timeframes: [1h]\nfeatures: []", InvalidSetting),
        ("timeframes: 1h\nfeatures: [RSI]", InvalidSetting),
        ("timeframes: [1h]\nfeatures: [RSI]\nsymbols: [BTCUSDT]", InvalidSetting),
        ("timeframes: [1h\nfeatures", InvalidSetting),
        ("timeframes: [1H]\nfeatures: [RSI]", UnknownTimeframe),
        ("timeframes: [1h]\nfeatures: [RSY]", UnknownFeature),
        ("timeframes: [1h]\nfeatures: [{name: RSI, timeframe: 1h}]", InvalidFeature),
        ("timeframes: [1h]\nfeatures: [3]", InvalidFeature),
    ],
)
def test_a_file_that_is_no_catalogue_is_refused(tmp_path: Path, text: str, error: type[PlatformError]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(error) as caught:
        standing_catalogue(path)
    assert len(str(caught.value).splitlines()) == (3 if error is UnknownFeature else 1)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"none\.yaml"):
        standing_catalogue(tmp_path / "none.yaml")
