"""What a strategy imports. It is light: the heavy libraries come in when a reader is made, not before.

from mdplatform.strategy import FeatureReader

with FeatureReader() as reader:
    rsi = reader.latest("BTCUSDT", "RSI(timeperiod=14)", timeframe="15m", n=200)
    print(rsi.values[-1], rsi.available_at, rsi.source, rsi.version)
"""

from mdplatform.strategy.reader import AsyncFeatureReader, FeatureReader

__all__ = ["AsyncFeatureReader", "FeatureReader"]
