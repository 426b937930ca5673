"""VPIN: the volume-synchronised probability of informed trading, from true taker sides.

1. Trades are poured, in order, into buckets of equal volume V; one that does not fit is split exactly at the edge.
2. A full bucket is worth |V_buy − V_sell| / V.
3. VPIN is the mean of the last n full buckets: Σ |V_buy − V_sell| / (n V). It lies in [0, 1]; the open bucket, and a
   window of fewer than n full ones, is not reported.

Easley, López de Prado, O'Hara: Flow Toxicity and Liquidity in a High-Frequency World, Review of Financial Studies 25
(2012). There, sides are guessed from prices (bulk volume classification); venues that tell the taker need no guess.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats

_FULL = 1e-9
"""The share of a bucket that may lack or be left over through rounding: ten trades of 0.1 fill a bucket of 1."""


def vpin_after(
    quantity: Floats, is_buy: NDArray[np.bool_], counts: NDArray[np.int64], bucket_volume: float, buckets: int
) -> Floats:
    """Give VPIN after the first `counts[i]` trades, for each i (ascending); NaN where fewer than `buckets` are full.

    `quantity` and `bucket_volume` are in the base asset, and the latter is above zero.
    """
    return np.asarray(_vpin_after(quantity, is_buy, counts, bucket_volume, buckets))


@compiled
def _vpin_after(
    quantity: Floats, is_buy: NDArray[np.bool_], counts: NDArray[np.int64], bucket_volume: float, buckets: int
) -> Floats:
    values = np.full(len(counts), np.nan)
    newest = np.zeros(buckets)
    closed, taken = 0, 0
    bought, sold = 0.0, 0.0
    slack = _FULL * bucket_volume
    for row in range(len(counts)):
        while taken < counts[row]:
            left = quantity[taken]
            while left > 0:
                room = bucket_volume - (bought + sold)  # the same whichever side is which
                part = min(left, room)
                if is_buy[taken]:
                    bought += part
                else:
                    sold += part
                if left < room - slack:
                    break
                newest[closed % buckets] = abs(bought - sold) / (bought + sold)
                closed += 1
                bought, sold = 0.0, 0.0
                left -= part
                if left <= slack:
                    break
                if left >= bucket_volume * buckets:  # fills them all, however many: each is of one side
                    newest[:] = 1.0
                    closed += buckets
                    left = np.fmod(left, bucket_volume)
            taken += 1
        if closed >= buckets:
            values[row] = newest.mean()
    return values
