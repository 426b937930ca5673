"""Redis as a Dagster resource: what runs tell it, and what becomes of a run when it is away.

The lake is the truth. A Redis that is down fails no run: the run says so, and readers compute from the lake.
"""

from collections.abc import Sequence
from functools import cached_property
from logging import Logger

import dagster as dg
from pydantic import PrivateAttr

from mdplatform.errors import RedisUnavailable
from mdplatform.features import FeatureSpec
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources.settings import SettingsResource
from mdplatform.serving.publisher import Published, Publisher
from mdplatform.valkey.connection import connect


class RedisResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The Redis of the settings, or the embedded Valkey of the home."""

    settings: dg.ResourceDependency[SettingsResource]
    _opened: bool = PrivateAttr(default=False)

    @cached_property
    def _connection(self):  # type: ignore[no-untyped-def]  # redis-py's client is generic at type time alone
        self._opened = True
        return connect(self.settings.settings)

    def publisher(self) -> Publisher:
        """Give a publisher. Raises `RedisUnavailable`."""
        return Publisher(self._connection, self.settings.settings)

    def announce_bars(self, symbol: str, log: Logger, run_id: str = "") -> str | None:
        """Tell readers that the bars of `symbol` have changed; see `announce`."""
        return self.announce("bars", symbol, log, run_id)

    def announce(self, dataset: str, key: str, log: Logger, run_id: str = "") -> str | None:
        """Tell readers that a dataset has changed for a symbol or series, so that they take no older value for fresh.

        The dataset is `bars`, `trades`, `depth`, `macro` or `sentiment`; the key is empty for that. Call it when the
        lake has the change. `run_id` is the run that made it: requests that waited for it say so in their answers.
        Gives in words what went wrong, None if nothing did.
        """
        try:
            self.publisher().bump(dataset, key, run_id=run_id)
        except RedisUnavailable as away:
            log.warning(f"Readers were not told of new {' of '.join(filter(None, (dataset, key)))}. {away}")
            return str(away)
        return None

    def publish(
        self,
        lake: Lake,
        symbol: str,
        timeframes: Sequence[Timeframe],
        features: Sequence[FeatureSpec],
        made_by: str,
        log: Logger,
    ) -> tuple[Published, str | None]:
        """Publish the newest rows of `features`; give what was stored, and in words what went wrong, if anything."""
        total = Published()
        try:
            for timeframe in timeframes:
                total += self.publisher().publish_features(lake, symbol, timeframe, features, made_by=made_by)
        except RedisUnavailable as away:
            log.warning(f"The features of {symbol} are in the lake but not in Redis. {away}")
            return total, str(away)
        return total, None

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let go of the connection, and with it of the embedded server."""
        if self._opened:
            self._connection.close()
