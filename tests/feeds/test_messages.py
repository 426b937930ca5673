"""Messages of Binance's websocket: what they give, and which are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdplatform.feeds.binance_messages import Farewell, Reply, Said, Unreadable, decode
from mdplatform.market.events import BookChange, Candle, Trade
from mdplatform.market.timeframe import Timeframe

AT = 1_737_331_201_000

AGG = {
    "e": "aggTrade", "E": AT + 1, "s": "BTCUSDT", "a": 26129, "p": "0.01633102", "q": "4.70443515", "f": 27781,
    "l": 27781, "T": AT, "m": True, "M": True,
}  # fmt: skip
BAR = {
    "t": AT - 1000, "T": AT + 58_999, "s": "BTCUSDT", "i": "1m", "f": 100, "L": 200, "o": "0.0010", "c": "0.0020",
    "h": "0.0025", "l": "0.0010", "v": "1000", "n": 100, "x": False, "q": "1.5", "V": "500", "Q": "0.7", "B": "0",
}  # fmt: skip
KLINE = {"e": "kline", "E": AT + 2, "s": "BTCUSDT", "k": BAR}
DEPTH = {"e": "depthUpdate", "E": AT, "s": "BTCUSDT", "U": 157, "u": 160, "b": [["0.0024", "10"]], "a": []}


def text(data: dict[str, Any], stream: str | None = "x@y") -> bytes:
    return json.dumps(data if stream is None else {"stream": stream, "data": data}).encode()


@pytest.mark.parametrize("stream", ["x@y", None])
def test_messages_of_combined_and_single_streams_become_events(stream: str | None) -> None:
    trade = Trade("BTCUSDT", 26129, AT * 1000, 0.01633102, 4.70443515, True, 7)
    assert decode(text(AGG, stream), 7) == Said(trade, (AT + 1) * 1000)
    candle = Candle(
        "BTCUSDT", Timeframe.M1, (AT - 1000) * 1000, 0.001, 0.0025, 0.001, 0.002, 1000.0, 1.5, 100, 500.0, 0.7, False,
        (AT + 2) * 1000, 7,
    )  # fmt: skip
    assert decode(text(KLINE, stream), 7) == Said(candle, (AT + 2) * 1000)
    change = BookChange("BTCUSDT", AT * 1000, 157, 160, ((0.0024, 10.0),), (), received_at=7)
    assert decode(text(DEPTH, stream), 7) == Said(change, AT * 1000)


def test_an_instant_in_microseconds_is_told_by_its_magnitude() -> None:
    said = decode(text(AGG | {"T": AT * 1000, "E": AT * 1000}), 7)
    assert isinstance(said, Said)
    assert said.event.time == said.time == AT * 1000


def test_a_snapshot_has_the_symbol_and_the_time_that_are_given_with_it() -> None:
    body = b'{"lastUpdateId":160,"bids":[["1.0","2.0"]],"asks":[]}'
    said = decode(body, 7, symbol="BTCUSDT", now=AT)
    assert said == Said(BookChange("BTCUSDT", AT, 160, 160, ((1.0, 2.0),), (), is_snapshot=True, received_at=7), AT)


@pytest.mark.parametrize("stream", ["!serverShutdown", None])
def test_that_a_server_is_about_to_go_down_is_told_apart(stream: str | None) -> None:
    assert decode(text({"e": "serverShutdown", "E": AT}, stream), 7) == Farewell()


def test_answers_to_what_was_sent_are_told_apart() -> None:
    assert decode(b'{"result":null,"id":3}', 7) == Reply(3)
    refused = decode(b'{"error":{"code":2,"msg":"Invalid request"},"id":3}', 7)
    assert isinstance(refused, Reply)
    assert "Invalid request" in refused.error
    ticker = {"u": 1, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}
    assert decode(text(ticker), 7) is None
    assert decode(text({"e": "24hrTicker", "E": AT, "s": "BTCUSDT"}), 7) is None


@pytest.mark.parametrize(
    "data",
    [
        AGG | {"p": "0"}, AGG | {"p": "-1"}, AGG | {"p": "nan"}, AGG | {"p": "inf"}, AGG | {"p": "x"},
        AGG | {"p": None}, AGG | {"q": "-1"}, AGG | {"q": "1e999"}, AGG | {"T": 1}, AGG | {"T": 10**18},
        AGG | {"E": -5}, AGG | {"a": -1}, AGG | {"a": "x"}, AGG | {"s": None}, AGG | {"m": "perhaps"},
        KLINE | {"k": BAR | {"h": "0.0001"}}, KLINE | {"k": BAR | {"l": "0"}}, KLINE | {"k": BAR | {"v": "-1"}},
        KLINE | {"k": BAR | {"i": "7m"}}, KLINE | {"k": BAR | {"t": AT}}, KLINE | {"k": None}, KLINE | {"k": []},
        DEPTH | {"U": 161}, DEPTH | {"b": [["1"]]}, DEPTH | {"a": [["0", "1"]]}, DEPTH | {"a": [["1", "-1"]]},
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        decode(text(data), 7)


def is_read_or_refused(raw: bytes) -> bool:
    try:
        return isinstance(decode(raw, 7), Said | Reply | None)
    except Unreadable:
        return True


def test_a_message_nested_without_end_is_refused() -> None:
    assert is_read_or_refused(b'{"result":' + b"[" * 100_000)
    assert is_read_or_refused(b'{"data":' * 100_000)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    assert is_read_or_refused(raw)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_message_is_read_or_refused(place: int, byte: int) -> None:
    raw = bytearray(text(KLINE))
    raw[place % len(raw)] = byte
    assert is_read_or_refused(bytes(raw))
