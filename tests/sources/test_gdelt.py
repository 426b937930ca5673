"""GDELT's files, as its codebook and the DOC API describe them."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mdplatform.errors import UnknownFormat
from mdplatform.features.sentiment import counted
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.sources.sentiment_files import read_sentiment
from mdplatform.sources.sentiment_rows import text_hash
from mdplatform.sources.table_delivery import TableDelivery, TableOptions


def record(
    number: str = "20250301101500-12",
    tone: str = "-3.25,1.5,4.75,6.25,20.5,0.5,431",
    title: str | None = "Bitcoin&#x2019;s slide",
    written: str | None = "20250301093000",
    url: str = "https://example.org/a",
) -> str:
    """Give one line: 27 fields, as in the GKG 2.1 codebook."""
    extras = f"<PAGE_PRECISEPUBTIMESTAMP>{written}</PAGE_PRECISEPUBTIMESTAMP>" if written else ""
    extras += f"<PAGE_TITLE>{title}</PAGE_TITLE>" if title else ""
    fields = [""] * 27
    fields[0], fields[1], fields[2], fields[3], fields[4] = number, number[:14], "1", "example.org", url
    fields[7], fields[15], fields[17], fields[26] = "ECON_BITCOIN;TAX", tone, 'wc:431,c1.1:"2', extras
    return "\t".join(fields)


def take(path: Path, options: TableOptions | None = None) -> TableDelivery:
    (delivery,) = read_sentiment(path, options or TableOptions())
    assert delivery.rows.schema == SENTIMENT.delivered
    return delivery


def gkg(folder: Path, *lines: str, options: TableOptions | None = None) -> TableDelivery:
    path = folder / "20250301101500.gkg.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return take(path, options)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def test_a_record_is_available_when_its_batch_was_whenever_the_article_was_written(tmp_path: Path) -> None:
    row = gkg(tmp_path, record()).rows.to_dicts()[0]
    assert row["available_at"] == row["seen_at"] == at(2025, 3, 1, 10, 15)
    assert row["published_at"] == at(2025, 3, 1, 9, 30)
    assert (row["score"], row["provider"], row["doc_id"]) == (-0.0325, "gdelt", "20250301101500-12")
    assert row["text_hash"] == text_hash("Bitcoin’s slide")


@pytest.mark.parametrize("written", ["20250301120000", "19990101000000", "20259999000000", None])
def test_a_time_of_writing_that_cannot_be_is_not_believed(tmp_path: Path, written: str | None) -> None:
    row = gkg(tmp_path, record(written=written)).rows.to_dicts()[0]
    assert row["published_at"] == row["available_at"] == at(2025, 3, 1, 10, 15)


def test_the_same_title_at_several_addresses_counts_once(tmp_path: Path) -> None:
    lines = [record(f"20250301101500-{number}", url=f"https://example.org/{number}") for number in range(4)]
    rows = gkg(tmp_path, *lines, record("20250301101500-T9", title=None, url="https://x.org")).rows
    assert rows.height == 5
    assert len(counted(rows, "gdelt", None)) == 2


def test_records_without_a_tone_are_set_aside_and_quotes_mean_nothing(tmp_path: Path) -> None:
    delivery = gkg(tmp_path, record(), record("20250301101500-13", tone=""), record("20251301101500-14", title='"a'))
    assert delivery.rows["doc_id"].to_list() == ["20250301101500-12"]
    assert sorted(delivery.set_aside["rule"]) == ["score_missing", "time_missing"]


def test_a_batch_may_begin_with_a_short_record(tmp_path: Path) -> None:
    delivery = gkg(tmp_path, "20250301101500-11\t20250301101500", "", record())
    assert delivery.rows["doc_id"].to_list() == ["20250301101500-12"]


def test_a_short_record_and_one_that_is_no_utf_8_do_not_lose_the_others(tmp_path: Path) -> None:
    path = tmp_path / "batch.csv"
    path.write_bytes(
        f"{record()}\n20250301101500-13\t20250301101500\n".encode()
        + record("20250301101500-14").encode()[:-20]
        + b"\xff\n"
    )
    delivery = take(path)
    assert delivery.rows["doc_id"].to_list() == ["20250301101500-12", "20250301101500-14"]
    assert delivery.set_aside["rule"].to_list() == ["score_missing"]


def test_a_batch_as_it_is_published_is_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "20250301101500.gkg.csv.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("20250301101500.gkg.csv", record() + "\n")
    assert take(path, TableOptions(symbol="BTCUSDT")).rows["symbols"].to_list() == ["BTCUSDT"]


def timeline(*dates: str, series: str = "Average Tone") -> dict[str, object]:
    points = [{"date": date, "value": 1.5 + number} for number, date in enumerate(dates)]
    return {
        "query_details": {"title": "bitcoin", "date_resolution": "hour"},
        "timeline": [{"series": series, "data": points}],
    }


@pytest.mark.parametrize(
    ("dates", "first"),
    [
        (("20250301T000000Z", "20250302T000000Z", "20250304T000000Z"), at(2025, 3, 2)),
        (("20250301T100000Z", "20250301T110000Z"), at(2025, 3, 1, 11)),
        (("20250301T100000Z", "20250301T101500Z"), at(2025, 3, 1, 10, 15)),
        (("20250301T000000Z",), at(2025, 3, 2)),
    ],
)
def test_the_tone_of_an_interval_is_available_when_it_ends(
    tmp_path: Path, dates: tuple[str, ...], first: datetime
) -> None:
    path = tmp_path / "tone.json"
    path.write_text(json.dumps(timeline(*dates)))
    rows = take(path).rows
    assert rows["available_at"][0] == first
    assert rows["score"][0] == 0.015
    assert rows["doc_id"][0].startswith("tone of bitcoin 2025-03-01T")


def test_a_timeline_as_csv_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tone.csv"
    path.write_bytes("\ufeffDate,Series,Value\n2025-03-01,Average Tone,1.5\n2025-03-02,Average Tone,-2\n".encode())
    rows = take(path).rows
    assert rows["score"].to_list() == [0.015, -0.02]
    assert rows["available_at"].to_list() == [at(2025, 3, 2), at(2025, 3, 3)]


def test_points_without_a_value_are_set_aside(tmp_path: Path) -> None:
    body = timeline("20250301T000000Z", "20250302T000000Z")
    body["timeline"][0]["data"][1]["value"] = None  # type: ignore[index]
    path = tmp_path / "tone.json"
    path.write_text(json.dumps(body))
    delivery = take(path)
    assert (delivery.rows.height, delivery.set_aside["rule"].to_list()) == (1, ["score_missing"])


def test_a_timeline_of_volumes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "volume.json"
    path.write_text(json.dumps(timeline("20250301T000000Z", series="Volume Intensity")))
    with pytest.raises(UnknownFormat, match="mode=timelinetone"):
        take(path)
    path.write_text(json.dumps({"timeline": []}))
    with pytest.raises(UnknownFormat, match="no timeline of tone"):
        take(path)
