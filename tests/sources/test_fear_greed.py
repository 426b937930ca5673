"""The Fear & Greed Index: real bodies and tables, and the client against a server on a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mdplatform.errors import MislabelledFile, SourceUnavailable, UnknownFormat
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.settings import Settings
from mdplatform.sources.fear_greed import FearGreed
from mdplatform.sources.sentiment_files import read_sentiment
from mdplatform.sources.table_delivery import TableDelivery, TableOptions

from .archive_server import ArchiveServer

ASKED = "/fng/?limit=0"
BODY = {
    "name": "Fear and Greed Index",
    "data": [
        {"value": "47", "value_classification": "Neutral", "timestamp": "1745280000", "time_until_update": "6023"},
        {"value": "39", "value_classification": "Fear", "timestamp": "1745193600"},
        {"value": "100", "value_classification": "Extreme Greed", "timestamp": "1745107200"},
    ],
    "metadata": {"error": None},
}


def take(path: Path, options: TableOptions | None = None) -> TableDelivery:
    (delivery,) = read_sentiment(path, options or TableOptions())
    assert delivery.rows.schema == SENTIMENT.delivered
    return delivery


def test_the_real_table_has_2872_days_and_lacks_four(shared_data: Path) -> None:
    delivery = take(shared_data / "sentiment/Katiehey__Crypto-Bot/data/fear_greed_index.csv.gz")
    rows = delivery.rows
    assert (rows.height, delivery.set_aside.height) == (2_872, 0)
    days = rows["published_at"].dt.date()
    every = pl.date_range(days.min(), days.max(), eager=True)
    missing = sorted(set(every) - set(days))
    assert [f"{day}" for day in missing] == ["2018-04-14", "2018-04-15", "2018-04-16", "2024-10-26"]
    first = rows.to_dicts()[1]
    assert (first["score"], first["label"], first["doc_id"]) == (-0.7, "Extreme Fear", "2018-02-02")
    assert (rows["available_at"] == rows["published_at"]).all()
    assert rows["score"].is_between(-1, 1).all()


def test_the_real_body_of_the_api_has_a_year_newest_first(shared_data: Path) -> None:
    rows = take(shared_data / "sentiment/paleaura01__trading-bot/data/fear_greed.json").rows
    assert rows.height == 365
    assert rows["published_at"].is_sorted(descending=True)
    newest = rows.to_dicts()[0]
    assert (newest["score"], newest["label"], newest["provider"]) == (-0.06, "Neutral", "fear_greed")
    assert newest["available_at"] == datetime(2025, 4, 22, tzinfo=UTC)


def test_the_real_bodies_agree_where_both_have_a_day(shared_data: Path) -> None:
    table = take(shared_data / "sentiment/Katiehey__Crypto-Bot/data/fear_greed_index.csv.gz").rows
    body = take(shared_data / "sentiment/paleaura01__trading-bot/data/fear_greed.json").rows
    both = body.join(table, on="doc_id", suffix=" there")
    assert both.height > 300
    assert (both["score"] == both["score there"]).mean() > 0.99  # type: ignore[operator]
    assert (both["available_at"] == both["available_at there"]).all()


def test_a_body_with_dates_alone_is_available_when_each_day_ends(shared_data: Path) -> None:
    rows = take(shared_data / "sentiment/yuenan142__macro-financial-indicators/data/fear_greed.json").rows
    assert rows.height == 90
    assert (rows["available_at"] - rows["published_at"]).unique().to_list() == [timedelta(days=1)]
    assert rows["label"][0] == "Fear"


@pytest.mark.parametrize("day", ["2024-03-01", "2024-03-01 00:00:00", "2024-03-01T00:00:00Z", "1709251200"])
def test_only_a_date_alone_waits_for_the_end_of_its_day(tmp_path: Path, day: str) -> None:
    path = tmp_path / "index.csv"
    path.write_text(f"timestamp,value,value_classification\n{day},50,Neutral\n")
    expected = datetime(2024, 3, 2 if len(day) == 10 and "-" in day else 1, tzinfo=UTC)
    assert take(path).rows["available_at"].to_list() == [expected]


def test_values_that_are_none_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    lines = ["2024-03-01,50,Neutral", "2024-03-02,130,Greed", "2024-03-03,,", "2024-03-04,low,Fear", ",30,Fear"]
    path.write_text("timestamp,value,value_classification\n" + "\n".join(lines) + "\n")
    delivery = take(path)
    assert delivery.rows["doc_id"].to_list() == ["2024-03-01"]
    assert sorted(delivery.set_aside["rule"]) == ["score_invalid", "score_missing", "score_missing", "time_missing"]


def test_another_name_may_be_given_to_it_and_no_impossible_one(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(BODY))
    assert take(path, TableOptions(provider="mood")).rows["provider"].unique().to_list() == ["mood"]
    with pytest.raises(MislabelledFile, match="Not a name of a provider"):
        take(path, TableOptions(provider="a/b"))


@pytest.fixture
def api() -> Iterator[ArchiveServer]:
    with ArchiveServer(files={ASKED: json.dumps(BODY).encode()}).running() as server:
        yield server


def client(api: ArchiveServer, waits: list[float], **given: Any) -> FearGreed:
    return FearGreed(api.url + "/", sleep=waits.append, **{"timeout_seconds": 5.0, **given})


def test_the_api_is_asked_once_for_all_there_is(api: ArchiveServer) -> None:
    waits: list[float] = []
    (delivery,) = client(api, waits).deliveries("", None, None)
    assert delivery.rows["score"].to_list() == [-0.06, -0.22, 1.0]
    assert delivery.source == "fear_greed:"
    assert [path for _, path, _ in api.requests] == [ASKED]
    assert waits == []


def test_the_range_cuts_by_when_a_value_was_available(api: ArchiveServer) -> None:
    start, end = 1_745_193_600_000_000, 1_745_280_000_000_000
    (delivery,) = client(api, []).deliveries("", start, end)
    assert delivery.rows["doc_id"].to_list() == ["2025-04-21"]


def test_what_may_pass_is_tried_again_later_and_later(api: ArchiveServer) -> None:
    api.fault(ASKED, "503", "cut 40", "429 after 7", "500")
    waits: list[float] = []
    (delivery,) = client(api, waits).deliveries("", None, None)
    assert delivery.rows.height == 3
    assert len(waits) == 4
    assert 0.25 <= waits[0] <= 0.5
    assert 0.5 <= waits[1] <= 1.0
    assert waits[2] == 7
    assert 2.0 <= waits[3] <= 4.0


def test_retries_have_an_end_and_so_has_the_time_they_take(api: ArchiveServer) -> None:
    api.fault(ASKED, *["503"] * 20)
    with pytest.raises(SourceUnavailable, match="after 3 attempts: 'HTTP 503'"):
        list(client(api, [], retries=2).deliveries("", None, None))
    api.faults.clear()
    api.fault(ASKED, "429 after 100000")
    waits: list[float] = []
    with pytest.raises(SourceUnavailable, match="after 1 attempts"):
        list(client(api, waits, deadline_seconds=60.0).deliveries("", None, None))
    assert waits == []


def test_a_server_that_stalls_is_left_after_the_timeout(api: ArchiveServer) -> None:
    api.fault(ASKED, "stall 20", "stall 20")
    with pytest.raises(SourceUnavailable, match="ReadTimeout"):
        list(client(api, [], retries=1, timeout_seconds=0.2).deliveries("", None, None))


def test_a_refusal_is_not_tried_again(api: ArchiveServer) -> None:
    api.fault(ASKED, "403")
    waits: list[float] = []
    with pytest.raises(SourceUnavailable, match="HTTP 403"):
        list(client(api, waits).deliveries("", None, None))
    assert waits == []


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": []}', b"[1]", b'{"data": [1, 2]}'])
def test_an_answer_that_is_no_index_is_refused(api: ArchiveServer, body: bytes) -> None:
    api.files[ASKED] = body
    with pytest.raises(UnknownFormat):
        list(client(api, []).deliveries("", None, None))


def test_there_is_one_index_and_its_address_is_a_setting(api: ArchiveServer) -> None:
    with pytest.raises(SourceUnavailable, match="fear_greed:"):
        list(client(api, []).deliveries("BTC", None, None))
    assert FearGreed.from_settings(Settings.load(fear_greed_url=api.url)).url == f"{api.url}/fng/"


def test_nobody_listening_is_one_clear_error() -> None:
    with pytest.raises(SourceUnavailable, match="MDPLATFORM_FEAR_GREED_URL"):
        list(FearGreed("http://127.0.0.1:9", retries=0).deliveries("", None, None))


@pytest.mark.parametrize("url", ["ftp://example.org", "example.org", "", "http://[::1"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    waits: list[float] = []
    with pytest.raises(SourceUnavailable, match="See MDPLATFORM_FEAR_GREED_URL"):
        list(FearGreed(url, sleep=waits.append).deliveries("", None, None))
    assert waits == []
