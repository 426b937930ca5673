"""Files of macro series: what they tell of the past, and what they do not."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from mdplatform.errors import (
    EmptyFile,
    InvalidTable,
    MislabelledFile,
    ParameterOutOfRange,
    SourceUnavailable,
    UnknownColumns,
    UnknownFormat,
)
from mdplatform.market.macro import MACRO
from mdplatform.sources.macro_files import read_macro
from mdplatform.sources.table_delivery import TableDelivery, TableOptions
from mdplatform.sources.vintages import INTERVALS, rows_of_intervals

TAKEN = datetime(2025, 8, 20, 7, 30, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, text: str, name: str = "CPIAUCSL.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, **options: object) -> TableDelivery:
    (delivery,) = read_macro(path, TableOptions(**{"taken_at": TAKEN, **options}))  # type: ignore[arg-type]
    assert delivery.rows.schema == MACRO.delivered
    return delivery


FRED_CSV = "observation_date,CPIAUCSL\n2025-05-01,320.580\n2025-06-01,321.500\n2025-07-01,\n"


@pytest.mark.parametrize(
    "text",
    [
        FRED_CSV,
        "DATE,VALUE\n2025-05-01,320.580\n2025-06-01,321.500\n2025-07-01,.\n",
        "date,value\r\n2025-05-01, 320.58\r\n2025-06-01,321.5\r\n2025-07-01,NA\r\n",
        '[{"date":"2025-05-01","value":320.58},{"date":"2025-06-01","value":"321.5"},{"date":"2025-07-01","value":null}]',
    ],
)
def test_all_values_are_known_from_the_instant_at_which_the_file_is_taken_in(folder: Path, text: str) -> None:
    delivery = read(write(folder, text, "CPIAUCSL.json" if text.startswith("[") else "CPIAUCSL.csv"))
    assert delivery.rows["value"].to_list() == [320.58, 321.5, None]
    assert delivery.rows["series_id"].unique().to_list() == ["CPIAUCSL"]
    assert delivery.rows["available_at"].unique().to_list() == [TAKEN]
    assert delivery.rows["vintage"].unique().to_list() == [datetime(2025, 8, 20, tzinfo=UTC)]
    assert delivery.rows["published_at"].null_count() == 3
    assert "--lag-days" in delivery.notes[0]
    assert "--observed" in delivery.notes[0]


@pytest.mark.parametrize("modified", [datetime(1980, 1, 1, tzinfo=UTC), datetime(2025, 8, 1, tzinfo=UTC)])
def test_a_files_modification_time_witnesses_nothing(folder: Path, modified: datetime) -> None:
    path = write(folder, FRED_CSV)
    os.utime(path, (modified.timestamp(),) * 2)
    assert read(path).rows["available_at"].unique().to_list() == [TAKEN]
    before = datetime.now(UTC)
    assert read(path, taken_at=None).rows["available_at"].min() >= before  # type: ignore[operator]


def test_latest_values_and_vintages_are_two_forms_and_a_file_of_a_stated_day_goes_with_either(folder: Path) -> None:
    path = write(folder, FRED_CSV)
    assert (read(path).form, read(path).snapshot) == ("latest values", True)
    assert read(path, observed=TAKEN).form == ""
    assert read(path, observed=TAKEN, lag_days=40).form == read(path, lag_days=40).form == "latest values"
    vintages = list(read_macro(write(folder, VINTAGES, "v.csv"), TableOptions()))
    assert {(each.form, each.snapshot) for each in vintages} == {("vintages", False)}


def test_a_body_says_itself_when_it_was_written(folder: Path) -> None:
    body = {
        "series_id": "M2SL",
        "points": [{"date": "2025-06-01", "value": 22020.8}],
        "updated_at": "2025-08-12T09:22:08Z",
    }
    rows = read(write(folder, json.dumps(body, indent=1), "m2.json")).rows
    assert rows["available_at"].to_list() == [datetime(2025, 8, 12, 9, 22, 8, tzinfo=UTC)]
    assert rows["series_id"].to_list() == ["M2SL"]


def test_the_caller_can_say_when_it_was_observed(folder: Path) -> None:
    stated = datetime(2025, 7, 15, 13, tzinfo=UTC)
    assert read(write(folder, FRED_CSV), observed=stated).rows["available_at"].unique().to_list() == [stated]


@pytest.mark.parametrize("years", [-1, 5000])
def test_nobody_observes_what_has_not_begun_or_from_the_future(folder: Path, years: int) -> None:
    with pytest.raises(MislabelledFile, match="cannot have been observed"):
        read(write(folder, FRED_CSV), observed=datetime(2025 + years, 7, 1, tzinfo=UTC))


def test_the_end_of_today_means_now(folder: Path) -> None:
    soon = TAKEN + timedelta(hours=12)
    assert read(write(folder, FRED_CSV), observed=soon).rows["available_at"].max() == TAKEN


def test_a_stated_lag_puts_values_at_their_clock_time_and_never_after_the_file(folder: Path) -> None:
    delivery = read(write(folder, FRED_CSV), lag_days=45)
    assert delivery.rows["available_at"].to_list() == [
        datetime(2025, 6, 15, 12, 30, tzinfo=UTC),
        datetime(2025, 7, 16, 12, 30, tzinfo=UTC),
        datetime(2025, 8, 15, 12, 30, tzinfo=UTC),
    ]
    late = read(write(folder, FRED_CSV), lag_days=400).rows
    assert late["available_at"].unique().to_list() == [TAKEN]
    assert delivery.rows["published_at"].null_count() == 3
    assert "45 days" in delivery.notes[0]


@budget(max_examples=30, deadline=None)
@given(lag=st.integers(0, 3650), first=st.integers(0, 20_000))
def test_no_lag_makes_a_value_known_before_its_period(
    tmp_path_factory: pytest.TempPathFactory, lag: int, first: int
) -> None:
    day = datetime(1965, 1, 1, tzinfo=UTC) + timedelta(days=first)
    text = f"DATE,VALUE\n{day:%Y-%m-%d},1\n"
    rows = read(write(tmp_path_factory.mktemp("x"), text), lag_days=lag).rows
    assert (rows["available_at"] >= rows["ref_period"]).all()
    assert (rows["available_at"] <= TAKEN).all()


def test_a_negative_lag_is_refused(folder: Path) -> None:
    with pytest.raises(ParameterOutOfRange, match="before its date"):
        read(write(folder, FRED_CSV), lag_days=-1)


def test_a_column_a_series_gives_a_delivery_each(folder: Path) -> None:
    text = "observation_date,CPIAUCSL,UNRATE\n2025-05-01,320.58,4.2\n2025-06-01,321.5,4.1\n"
    deliveries = list(read_macro(write(folder, text, "fredgraph.csv"), TableOptions()))
    assert [each.rows["series_id"][0] for each in deliveries] == ["CPIAUCSL", "UNRATE"]
    assert deliveries[1].rows["value"].to_list() == [4.2, 4.1]


def test_of_many_columns_the_caller_may_want_one(folder: Path) -> None:
    text = "observation_date,CPIAUCSL,UNRATE\n2025-05-01,320.58,4.2\n2025-06-01,321.5,4.1\n"
    path = write(folder, text, "fredgraph.csv")
    assert read(path, symbol="UNRATE").rows["value"].to_list() == [4.2, 4.1]
    with pytest.raises(MislabelledFile, match="no column GDP"):
        read(path, symbol="GDP")


@pytest.mark.parametrize("stated", [{"observed": TAKEN}, {"lag_days": 3}])
def test_a_file_of_vintages_is_told_nothing_of_when_its_values_were_known(
    folder: Path, stated: dict[str, object]
) -> None:
    with pytest.raises(MislabelledFile, match=r"has vintages.* Leave --"):
        list(read_macro(write(folder, VINTAGES, "v.csv"), TableOptions(**stated)))  # type: ignore[arg-type]


VINTAGES = """series_id,realtime_start,realtime_end,date,value
GDP,2025-04-30,2025-05-28,2025-01-01,29977.6
GDP,2025-05-29,9999-12-31,2025-01-01,29976.6
GDP,2025-07-30,9999-12-31,2025-04-01,30331.1
UNRATE,2025-08-01,9999-12-31,2025-07-01,.
"""


def test_vintages_are_known_from_their_release_on(folder: Path) -> None:
    gdp, unrate = read_macro(write(folder, VINTAGES, "vintages.csv"), TableOptions())
    assert gdp.rows["available_at"].to_list() == [
        datetime(2025, 4, 30, 12, 30, tzinfo=UTC),
        datetime(2025, 5, 29, 12, 30, tzinfo=UTC),
        datetime(2025, 7, 30, 12, 30, tzinfo=UTC),
    ]
    assert gdp.notes == ()
    assert unrate.rows["value"].to_list() == [None]
    assert gdp.rows["published_at"].to_list() == gdp.rows["available_at"].to_list()


def test_an_observation_that_ends_without_another_was_withdrawn(folder: Path) -> None:
    text = VINTAGES.replace("2025-05-29,9999-12-31", "2025-05-29,2025-06-25")
    rows = next(iter(read_macro(write(folder, text, "vintages.csv"), TableOptions()))).rows
    told = rows.filter(pl.col("ref_period") == datetime(2025, 1, 1, tzinfo=UTC)).sort("vintage")
    assert told["value"].to_list() == [29977.6, 29976.6, None]
    assert told["vintage"][-1] == datetime(2025, 6, 26, tzinfo=UTC)


def test_a_file_that_was_cut_off_on_a_day_withdraws_nothing_on_it(folder: Path) -> None:
    text = VINTAGES.replace("9999-12-31", "2025-08-15")
    deliveries = list(read_macro(write(folder, text, "vintages.csv"), TableOptions()))
    assert deliveries[0].rows["value"].null_count() == 0


def test_without_ends_a_vintage_stands_until_the_next_one(folder: Path) -> None:
    rows = [line.split(",") for line in VINTAGES.splitlines()[:4]]
    text = "\n".join(",".join((row[0], row[1], row[3], row[4])) for row in rows)
    with_ends = next(iter(read_macro(write(folder, VINTAGES, "a.csv"), TableOptions()))).rows
    (without,) = read_macro(write(folder, text, "b.csv"), TableOptions())
    assert without.rows.equals(with_ends)


def test_a_body_of_freds_api_is_read_as_it_is(folder: Path) -> None:
    body = {
        "realtime_start": "2025-01-01",
        "count": 1,
        "observations": [
            {"realtime_start": "2025-04-30", "realtime_end": "9999-12-31", "date": "2025-01-01", "value": "29977.6"}
        ],
    }
    rows = read(write(folder, json.dumps(body), "GDP.json")).rows
    assert rows["available_at"].to_list() == [datetime(2025, 4, 30, 12, 30, tzinfo=UTC)]
    assert rows["series_id"].to_list() == ["GDP"]


def test_the_same_vintage_twice_is_one(folder: Path) -> None:
    text = VINTAGES + VINTAGES.splitlines()[1] + "\n"
    assert next(iter(read_macro(write(folder, text, "v.csv"), TableOptions()))).rows.height == 3


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("2025-13-01,1", "time_missing"),
        (",2", "time_missing"),
        ("soon,oops", "time_missing"),
        ("2025-02-01,oops", "value_invalid"),
        ("2025-02-01,inf", "value_invalid"),
        ('2025-02-01,"1,234"', "value_invalid"),
    ],
)
def test_a_row_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(folder: Path, row: str, rule: str) -> None:
    delivery = read(write(folder, f"date,value\n2025-01-01,1\n{row}\n2025-03-01,.\n"))
    assert delivery.rows["value"].to_list() == [1.0, None]
    assert delivery.set_aside["rule"].to_list() == [rule]
    assert json.loads(delivery.set_aside["row"][0])["date"] == (row.split(",")[0] or None)
    alone = read(write(folder, f"date,value\n{row}\n", "B.csv"))
    assert (alone.rows.height, alone.set_aside["rule"].to_list()) == (0, [rule])


def test_an_interval_that_cannot_be_read_is_set_aside_and_its_observation_has_no_value_then(folder: Path) -> None:
    head = "date,realtime_start,realtime_end,value\n"
    sound = ["2025-01-01,2025-02-10,2025-03-09,1.0\n", "2025-02-01,2025-03-10,9999-12-31,2.0\n"]
    broken = ["2025-03-01,2025-04-10,soon,3.0\n", "2025-01-01,2025-03-10,9999-12-31,oops\n"]
    delivery = read(write(folder, head + "".join(sound + broken)))
    assert delivery.set_aside["rule"].to_list() == ["time_missing", "value_invalid"]
    rows = delivery.rows.select("ref_period", "vintage", "value").rows()
    told = {(f"{period:%m}", f"{vintage:%m-%d}", value) for period, vintage, value in rows}
    assert told == {("01", "02-10", 1.0), ("01", "03-10", None), ("02", "03-10", 2.0)}
    alone = read(write(folder, head + sound[0] + broken[1], "B.csv")).rows
    assert alone["value"].to_list() == [1.0, None], "the older value does not stand on"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", EmptyFile, "empty"),
        ("date,value\n", EmptyFile, "no rows"),
        ("date,series_id\n2025-01-01,A\n", UnknownColumns, "value missing"),
        ("date,value\n2025-01-01,1\n2025-01-01,2\n", InvalidTable, "two values for one day"),
        ("when,value\n2025-01-01,1\n", UnknownColumns, "date missing"),
        ("DATE,OPEN,HIGH,LOW,CLOSE\n2025-01-01,1,1,1,1\n", UnknownColumns, "value missing"),
        ("date\n2025-01-01\n", UnknownColumns, "value missing"),
        (VINTAGES.replace("2025-05-28", "2025-05-30"), InvalidTable, "two values at one time"),
        (VINTAGES.replace("2025-05-28", "2025-04-01"), InvalidTable, "ends before it starts"),
        (VINTAGES.replace("UNRATE", "../UN"), MislabelledFile, "can be none"),
        ("<html></html>", UnknownFormat, "none of the formats"),
    ],
)
def test_a_broken_file_is_refused_with_what_is_wrong_and_where(
    folder: Path, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        list(read_macro(write(folder, text), TableOptions()))


def test_a_column_can_be_named_by_the_caller(folder: Path) -> None:
    path = write(folder, "DATE,OPEN,CLOSE\n2025-01-02,17.0,18.5\n", "vix.csv")
    rows = read(path, columns={"value": "CLOSE"}, symbol="VIXCLS").rows
    assert rows.select("series_id", "value").row(0) == ("VIXCLS", 18.5)


def test_a_series_that_contradicts_the_caller_is_refused(folder: Path) -> None:
    with pytest.raises(MislabelledFile, match="is of the series CPIAUCSL"):
        read(write(folder, FRED_CSV), symbol="UNRATE")


def test_parquet_is_read_with_its_own_types(folder: Path) -> None:
    path = folder / "UNRATE.parquet"
    pl.DataFrame({"date": [date(2025, 5, 1), date(2025, 6, 1)], "value": [4.2, float("nan")]}).write_parquet(path)
    assert read(path).rows["value"].to_list() == [4.2, None]


def test_a_path_that_does_not_exist_is_told(folder: Path) -> None:
    with pytest.raises(SourceUnavailable, match="does not exist"):
        read(folder / "CPIAUCSL.csv")


def test_an_empty_table_of_intervals_gives_no_rows() -> None:
    rows = rows_of_intervals("X", pl.DataFrame(schema=INTERVALS))
    assert rows.schema == MACRO.delivered
    assert rows.is_empty()


def test_all_real_series_are_read_and_hold_what_was_never_published(shared_data: Path) -> None:
    files = sorted((shared_data / "macro" / "sivamsapingali__Codex_Macro-Monitor" / "data").glob("*.csv*"))
    read_ = {each.rows["series_id"][0]: each.rows for path in files for each in read_macro(path, TableOptions())}
    assert len(read_) == 49
    october = pl.col("ref_period") == datetime(2025, 10, 1, tzinfo=UTC)
    for series in ("CPIAUCSL", "UNRATE"):
        assert read_[series].filter(october)["value"].to_list() == [None]
    assert read_["DGS10"]["value"].null_count() > 400  # holidays
    for rows in read_.values():
        assert (rows["available_at"] >= rows["ref_period"]).all()
        assert rows["ref_period"].n_unique() == rows.height


def test_real_vintages_are_read_whole(shared_data: Path) -> None:
    path = shared_data / "ready" / "macro" / "vintages_yuenan142.csv.gz"
    raw = pl.read_csv(path, infer_schema=False)
    for delivery in read_macro(path, TableOptions()):
        wanted = raw.filter(pl.col("series_id") == delivery.rows["series_id"][0])
        names = ("ref_period", "vintage")
        got = delivery.rows.select(*(pl.col(each).dt.strftime("%Y-%m-%d") for each in names), "value")
        told = wanted.select("date", "realtime_start", pl.col("value").cast(pl.Float64))
        assert sorted(got.rows(), key=str) == sorted(told.rows(), key=str)
        assert delivery.set_aside.is_empty()
