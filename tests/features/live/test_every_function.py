"""Every function of the registry, live and in a batch: the same bits and the same statuses."""

from __future__ import annotations

import pytest

from mdplatform.features import parse_feature
from mdplatform.features.registry import indicator_names

from .bars import check, market, troubled

FUNCTIONS = ["MAVP(close,trade_count)" if name == "MAVP" else name for name in indicator_names()]


@pytest.mark.parametrize("opened_at", [0, 700])
def test_every_function_equals_the_batch_on_troubled_bars(opened_at: int) -> None:
    features = [parse_feature(each) for each in FUNCTIONS]
    check(troubled(market(1100)), features, [opened_at], 1100)
