"""Files of scored news: columns, dates without a time, copies, symbols, rules; and the real ones."""

from __future__ import annotations

import builtins
import gzip
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mdplatform.errors import EmptyFile, MislabelledFile, SourceError, UnknownColumns, UnknownFormat
from mdplatform.features.sentiment import counted
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.table_rules import COMES_TWICE
from mdplatform.sources.scorers import Scored, UnknownScorer, scorer
from mdplatform.sources.sentiment_files import read_sentiment, scored
from mdplatform.sources.sentiment_rows import text_hash
from mdplatform.sources.table_delivery import TableDelivery, TableOptions

NEWS = TableOptions(provider="news")
VADER = TableOptions(provider="news", scorer="vader")
Write = Callable[[str], TableDelivery]


def take(path: Path, options: TableOptions = NEWS) -> TableDelivery:
    (delivery,) = read_sentiment(path, options)
    assert delivery.rows.schema == SENTIMENT.delivered
    return delivery


@pytest.fixture
def csv(tmp_path: Path) -> Write:
    def write(text: str, options: TableOptions = NEWS) -> TableDelivery:
        path = tmp_path / "news.csv"
        path.write_text(text, encoding="utf-8")
        return take(path, options)

    return write


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def test_the_real_news_are_what_is_known_of_them(shared_data: Path) -> None:
    path = shared_data / "sentiment/Shriniwas21__CryptoPricePrediction/data/news_sentiment_transformer.csv.gz"
    options = TableOptions(provider="news", columns={"score": "Accurate Sentiments"})
    delivery = take(path, options)
    assert (delivery.rows.height, delivery.repeated, delivery.set_aside.height) == (11_293, 2, 0)
    assert delivery.rows.height + delivery.repeated == 11_295
    assert 11_295 - delivery.rows["text_hash"].n_unique() == 172
    whole = pl.read_csv(path, infer_schema=False)
    late = delivery.rows["available_at"] > delivery.rows["published_at"]
    by_date = whole["Date"].str.ends_with(" 00:00:00").sum()
    assert by_date == 1_422
    assert round(by_date / 11_295, 3) == 0.126
    assert late.sum() == by_date
    assert (delivery.rows.filter(late)["available_at"] - delivery.rows.filter(late)["published_at"]).unique().len() == 1
    assert delivery.rows["score"].is_between(-1, 1).all()
    assert delivery.rows["doc_id"].is_unique().all()


def test_each_of_the_real_texts_counts_once(shared_data: Path) -> None:
    path = shared_data / "sentiment/Shriniwas21__CryptoPricePrediction/data/news_sentiment_transformer.csv.gz"
    rows = take(path, TableOptions(provider="news", columns={"score": "Accurate Sentiments"})).rows
    documents = counted(rows.sort("available_at"), "news", None)
    assert len(documents) == 11_295 - 172
    first = rows.group_by("text_hash").agg(pl.col("available_at").min())["available_at"].dt.epoch("us").sort()
    assert documents.available_at.tolist() == first.to_list()


def test_columns_are_found_by_their_usual_names(csv: Write) -> None:
    rows = csv("title,Sentiment Score,publishedAt,label\nUp it goes,0.5,2024-03-01T10:00:00Z,bull\n").rows
    row = rows.to_dicts()[0]
    assert (row["score"], row["label"], row["provider"], row["symbols"]) == (0.5, "bull", "news", "")
    assert row["published_at"] == row["available_at"] == at(2024, 3, 1, 10)
    assert row["text_hash"] == text_hash("up it  GOES")


def test_a_date_alone_is_available_when_its_day_ends_row_by_row(csv: Write) -> None:
    rows = csv("time,score,title\n2024-03-01,0.1,a\n2024-03-01 00:00:00,0.2,b\n2024-03-01 00:00:01,0.3,c\n").rows
    assert rows["available_at"].to_list() == [at(2024, 3, 2), at(2024, 3, 2), at(2024, 3, 1, 0, 0, 1)]
    assert rows["published_at"].to_list()[:2] == [at(2024, 3, 1)] * 2


@pytest.mark.parametrize(
    ("written", "available"),
    [
        ("2024-03-01T00:00:00+02:00", at(2024, 3, 1, 22)),
        ("2024-03-01 00:00", at(2024, 3, 2)),
        ("2024-03-01T00:00:00.000Z", at(2024, 3, 2)),
        ("1709251200", at(2024, 3, 2)),
        ("2024-03-01T02:00:00+02:00", at(2024, 3, 2)),
        ("2024-03-01T10:00:00Z", at(2024, 3, 1, 10)),
        ("2024-03-01T00:00:00.5Z", at(2024, 3, 1, 0, 0, 0, 500_000)),
    ],
)
def test_a_date_may_be_padded_in_many_ways(csv: Write, written: str, available: datetime) -> None:
    assert csv(f"time,score,title\n{written},0.1,a\n").rows["available_at"].to_list() == [available]


def test_midnight_of_a_column_with_a_zone_is_that_of_its_zone(tmp_path: Path) -> None:
    path = tmp_path / "news.parquet"
    local = pl.Series(["2024-03-01 00:00:00", "2024-03-01 05:00:00"]).str.to_datetime(time_zone="America/New_York")
    pl.DataFrame({"time": local, "score": [0.1, 0.2]}).write_parquet(path)
    assert take(path).rows["available_at"].to_list() == [at(2024, 3, 2, 5), at(2024, 3, 1, 10)]


def test_what_was_seen_later_is_available_later_and_a_date_from_when_it_was_seen(csv: Write) -> None:
    rows = csv(
        "time,seen_at,score,title\n"
        "2024-03-01 10:00:00,2024-03-01 10:07:00,0.1,a\n"
        "2024-03-01 10:00:00,2024-03-01 09:59:00,0.1,b\n"
        "2024-03-01,2024-03-01 09:30:00,0.1,c\n"
        "2024-03-01,,0.1,d\n"
    ).rows
    told = [at(2024, 3, 1, 10, 7), at(2024, 3, 1, 10), at(2024, 3, 1, 9, 30), at(2024, 3, 2)]
    assert rows["available_at"].to_list() == told


def test_a_file_that_says_when_it_was_available_is_believed_unless_that_is_before_publication(csv: Write) -> None:
    rows = csv(
        "time,available_at,score,title\n"
        "2024-03-01,2024-03-01 00:00:00,0.1,a\n"
        "2024-03-01 12:00:00,2024-03-01 11:00:00,0.1,b\n"
        "2024-03-01,,0.1,c\n"
    ).rows
    assert rows["available_at"].to_list() == [at(2024, 3, 1), at(2024, 3, 1, 12), at(2024, 3, 2)]


def test_symbols_come_from_a_column_and_from_nowhere_else(csv: Write) -> None:
    rows = csv(
        'time,score,title,symbols\n2024-03-01 10:00:01,0.1,a,"ETHUSDT, btcusdt"\n2024-03-01 10:00:01,0.1,BTCUSDT,\n'
    )
    assert rows.rows["symbols"].to_list() == ["BTCUSDT,ETHUSDT", ""]
    one = csv("time,score,title\n2024-03-01 10:00:01,0.1,a\n", TableOptions(provider="news", symbol="BTCUSDT"))
    assert one.rows["symbols"].to_list() == ["BTCUSDT"]


def test_one_article_with_a_row_for_each_symbol_keeps_all_of_them(csv: Write) -> None:
    rows = csv("id,time,score,title,ticker\n7,2024-03-01 10:00:01,0.1,a,AAA\n7,2024-03-01 10:00:01,-0.4,a,BBB\n").rows
    assert rows["doc_id"].to_list() == ["7:AAA", "7:BBB"]
    assert counted(rows, "news", "BBB").scores.tolist() == [-0.4]


def test_rows_that_make_no_sense_are_set_aside_under_a_rule(csv: Write) -> None:
    delivery = csv(
        "id,time,score,title,confidence,symbols\n"
        "1,2024-03-01 10:00:00,0.5,a,0.9,\n"
        "2,2024-03-01 10:00:00,1.5,b,0.9,\n"
        "3,2024-03-01 10:00:00,high,c,0.9,\n"
        "4,2024-03-01 10:00:00,,d,0.9,\n"
        "5,yesterday,0.5,e,0.9,\n"
        "6,2024-03-01 10:00:00,0.5,f,9,\n"
        "7,2024-03-01 10:00:00,0.5,g,0.9,no#symbol\n"
        "1,2024-03-01 10:00:00,0.6,h,0.9,\n"
        "8,2024-03-01 10:00:00,nan,i,0.9,\n"
        "9,2024-03-01 10:00:00,inf,i,0.9,\n"
    )
    assert delivery.rows["doc_id"].to_list() == ["1"]
    told = {json.loads(row)["id"] + json.loads(row)["title"]: rule for rule, row in delivery.set_aside.rows()}
    assert told == {
        "2b": "score_invalid", "3c": "score_missing", "4d": "score_missing", "5e": "time_missing",
        "6f": "confidence_invalid", "7g": "symbol_invalid", "1h": COMES_TWICE, "8i": "score_missing",
        "9i": "score_invalid",
    }  # fmt: skip


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "feather", "csv.gz", "jsonl.gz"])
def test_every_format_says_the_same(tmp_path: Path, ending: str) -> None:
    rows = [
        {"time": "2024-03-01T10:00:00Z", "score": 0.25, "headline": "It's up", "symbols": "BTCUSDT"},
        {"time": "2024-03-02", "score": -1.0, "headline": 'It\'s, "down"', "symbols": None},
    ]
    frame, path = pl.DataFrame(rows), tmp_path / f"news.{ending}"
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    writers: dict[str, Callable[[], Any]] = {
        "jsonl": lambda: path.write_bytes(lines),
        "json": lambda: path.write_text(json.dumps(rows)),
        "parquet": lambda: frame.write_parquet(path),
        "feather": lambda: frame.write_ipc(path),
        "csv.gz": lambda: path.write_bytes(gzip.compress(frame.write_csv().encode())),
        "jsonl.gz": lambda: path.write_bytes(gzip.compress(lines)),
    }
    writers[ending]()
    found = take(path).rows
    assert found["score"].to_list() == [0.25, -1.0]
    assert found["available_at"].to_list() == [at(2024, 3, 1, 10), at(2024, 3, 3)]
    assert found["symbols"].to_list() == ["BTCUSDT", ""]
    assert found["text_hash"].to_list() == [text_hash("It's up"), text_hash('It\'s, "down"')]


@pytest.mark.parametrize(
    "cells",
    [
        pl.Series([b"\xff", b"x"]),
        pl.Series([["a"], ["b"]]),
        pl.Series([[b"a"], [b"b"]]),
        pl.Series([{"a": 1}, {"a": 2}]),
        pl.Series(["a", "b"]).cast(pl.Categorical),
        pl.Series([1, 2]),
        pl.Series([True, False]),
    ],
    ids=lambda cells: str(cells.dtype),
)
@pytest.mark.parametrize("name", ["title", "label", "id", "unused"])
def test_cells_of_any_type_are_read_or_set_aside(tmp_path: Path, cells: pl.Series, name: str) -> None:
    path = tmp_path / "news.parquet"
    pl.DataFrame({"time": [at(2024, 3, 1, 10)] * 2, "score": [0.5, None], name: cells}).write_parquet(path)
    delivery = take(path)
    assert delivery.rows["score"].to_list() + delivery.set_aside["rule"].to_list() in (
        [0.5, "score_missing"],
        ["score_missing", "key_missing"],  # an id that is no text
    )


def test_one_line_of_json_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"time": 1709287200, "score": 0.5, "title": "x"}\n')
    assert take(path).rows["available_at"].to_list() == [at(2024, 3, 1, 10)]


def test_ids_do_not_depend_on_the_other_rows(csv: Write) -> None:
    alone = csv("time,score\n2024-03-01 10:00:00,0.5\n").rows["doc_id"].to_list()
    two = csv("time,score\n2024-03-01 10:00:00,0.5\n2024-03-01 11:00:00,0.5\n").rows["doc_id"].to_list()
    assert two[:1] == alone
    assert two[0] != two[1]


def test_the_callers_range_cuts_by_when_it_was_available(csv: Write) -> None:
    day = 86_400_000_000
    begin = 1_709_251_200_000_000  # 2024-03-01
    options = TableOptions(provider="news", start=begin + day, end=begin + 2 * day)
    rows = csv("time,score,title\n2024-03-01,0.1,a\n2024-03-01 23:59:59,0.2,b\n2024-03-02,0.3,c\n", options).rows
    assert rows["score"].to_list() == [0.1]


class Counting:
    """A scorer that gives a text's length in thousandths."""

    model = "counting 1"

    def score(self, texts: Sequence[str]) -> list[Scored]:
        return [Scored(len(text) / 1000, "long" if len(text) > 3 else "short", 0.5) for text in texts]


def test_texts_without_a_score_are_scored() -> None:
    frame = pl.DataFrame({"time": ["2024-03-01 10:00:00"] * 3, "title": ["abc", None, "abcdef"]})
    delivery = scored(frame, Path("texts.csv"), NEWS, Counting())
    assert delivery.rows["score"].to_list() == [0.003, 0.006]
    assert delivery.rows["label"].to_list() == ["short", "long"]
    assert delivery.rows["model"].unique().to_list() == ["counting 1"]
    assert delivery.set_aside["rule"].to_list() == ["score_missing"]
    assert "scored by counting 1" in delivery.notes[0]


def test_vader_scores_what_brings_no_score(csv: Write) -> None:
    pytest.importorskip("vaderSentiment")
    rows = csv(
        "time,title\n2024-03-01 10:00:00,This is great!\n2024-03-01 10:00:00,A terrible crash\n2024-03-01 10:00:00,x\n",
        VADER,
    ).rows
    assert rows["label"].to_list() == ["positive", "negative", "neutral"]
    assert rows["model"].str.starts_with("vader ").all()
    assert rows["score"][0] > 0.5
    assert rows["score"][2] == 0


def test_without_vader_the_error_says_how_to_install_it(csv: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *given: Any, **named: Any) -> Any:
        if name.startswith("vaderSentiment"):
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SourceError, match=r"pip install 'mdplatform\[vader\]'"):
        csv("time,title\n2024-03-01 10:00:00,This is great!\n", VADER)


def test_an_unknown_scorer_is_refused_with_those_there_are(csv: Write) -> None:
    with pytest.raises(UnknownScorer, match="Known: vader"):
        scorer("vadr")
    with pytest.raises(UnknownScorer, match=r"Unknown scorer: 'vadr'\. Known: vader"):
        csv("time,title\n2024-03-01 10:00:00,This is great!\n", TableOptions(provider="news", scorer="vadr"))


def test_texts_are_not_scored_unless_the_caller_names_what_scores_them(csv: Write) -> None:
    with pytest.raises(UnknownColumns) as refused:
        csv("time,title,mood\n2024-03-01 10:00:00,This is great!,0.9\n")
    for said in ("no column of scores", "time, title, mood", "--column score=NAME", "--scorer vader"):
        assert said in str(refused.value)


def test_a_scorer_that_has_nothing_to_score_is_refused(csv: Write) -> None:
    with pytest.raises(UnknownColumns, match="Leave --scorer out"):
        csv("time,title,score\n2024-03-01 10:00:00,This is great!,0.9\n", VADER)


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("time,score\n2024-03-01,0.5\n", TableOptions(), "--provider NAME"),
        ("time,score\n2024-03-01,0.5\n", TableOptions(provider="a b"), "Allowed: 1 to 64 letters"),
        ("when,score\n2024-03-01,0.5\n", NEWS, "--column published_at=NAME"),
        ("time,mood\n2024-03-01,0.5\n", NEWS, "--column score=NAME"),
        ("time,score\n2024-03-01,0.5\n", TableOptions(provider="n", columns={"score": "x"}), "no column x"),
        ("time,score\n2024-03-01,0.5\n", TableOptions(provider="n", columns={"mood": "score"}), "none of the columns"),
        ("time,score\n", NEWS, "no rows"),
        ("", NEWS, "is empty"),
        ("time;score\n2024-03-01;0.5\n", NEWS, "not separated by commas"),
        ('{"a": 1}', NEWS, "missing"),
    ],
)
def test_files_that_cannot_be_read_are_refused(csv: Any, text: str, options: TableOptions, problem: str) -> None:
    with pytest.raises((MislabelledFile, UnknownColumns, UnknownFormat, EmptyFile)) as refused:
        csv(text, options)
    assert problem in str(refused.value)


def test_texts_are_normalised_before_they_are_compared() -> None:
    assert text_hash("Ｂitcoin\tIS   up ") == text_hash("bitcoin is up")
    assert text_hash("Straße") == text_hash("STRASSE")
    assert text_hash("bitcoin is up.") != text_hash("bitcoin is up")
    assert text_hash(None) is None
    assert text_hash("\ud800") is not None


@pytest.mark.parametrize("unused", [{"columns": {"score": "value"}}, {"scorer": "vader"}])
def test_an_index_is_told_neither_columns_nor_a_scorer(tmp_path: Path, unused: dict[str, Any]) -> None:
    path = tmp_path / "fng.json"
    point = {"value": "40", "value_classification": "Fear", "timestamp": "1709251200"}
    path.write_text(json.dumps({"name": "Fear and Greed Index", "data": [point]}))
    with pytest.raises(MislabelledFile, match="Leave --"):
        take(path, TableOptions(**unused))
