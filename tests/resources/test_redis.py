"""Redis as runs see it: what they announce makes stored values old, and a Redis that is away fails nothing."""

from __future__ import annotations

import logging

import pytest

from mdplatform.messaging.redis.keys import CHANGES
from mdplatform.resources import RedisResource
from mdplatform.resources.settings import SettingsResource
from mdplatform.serving.keys import need_key
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect

LOG = logging.getLogger(__name__)
DATASETS = [("bars", "BTCUSDT"), ("trades", "BTCUSDT"), ("depth", "BTCUSDT"), ("macro", "CPIAUCSL"), ("sentiment", "")]


def resource(settings: Settings) -> RedisResource:
    return RedisResource(settings=SettingsResource(home=str(settings.home)))


@pytest.mark.parametrize(("dataset", "key"), DATASETS)
def test_what_is_announced_grows_a_sequence_of_its_own(settings: Settings, dataset: str, key: str) -> None:
    redis = resource(settings)
    with connect(settings) as client:
        assert redis.announce(dataset, key, LOG) is None
        first = int(client.get(need_key(dataset, key)) or 0)
        assert redis.announce(dataset, key, LOG) is None
        assert int(client.get(need_key(dataset, key)) or 0) > first > 0
        assert set(client.keys("mdp:*")) == {need_key(dataset, key).encode(), CHANGES.encode()}
        redis._connection.close()


def test_a_redis_that_is_away_is_told_in_words(settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("MDPLATFORM_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    redis = resource(settings)
    for said in (redis.announce("macro", "CPIAUCSL", LOG), redis.announce_bars("BTCUSDT", LOG)):
        assert said is not None
        assert "secret" not in said
    assert "new macro of CPIAUCSL" in caplog.text
    assert "new bars of BTCUSDT" in caplog.text
