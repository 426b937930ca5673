"""What a strategy imports. It is light: the heavy libraries come in when a reader or a manager is made, not before.

from mdplatform.strategy import DataPriority, FeatureReader, StrategyDataManager

with FeatureReader() as reader:
    rsi = reader.latest("BTCUSDT", "RSI(timeperiod=14)", timeframe="15m", n=200)
    print(rsi.values[-1], rsi.available_at, rsi.source, rsi.version)

async with StrategyDataManager() as manager:
    request_id = await manager.request_technical_indicators(
        strategy_id="momentum", symbols=["BTCUSDT"], indicators=["RSI"], timeframes=["15m"], priority=DataPriority.HIGH
    )
    print(await manager.result(request_id))
"""

from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.answer import Answer, Progress, Status
from mdplatform.requests.request import Refresh, RequestType
from mdplatform.requests.result import Result
from mdplatform.strategy.manager import StrategyDataManager
from mdplatform.strategy.pending import OpenRequest
from mdplatform.strategy.reader import AsyncFeatureReader, FeatureReader
from mdplatform.strategy.sync_manager import SyncStrategyDataManager

__all__ = [
    "Answer",
    "AsyncFeatureReader",
    "DataPriority",
    "FeatureReader",
    "OpenRequest",
    "Progress",
    "Refresh",
    "RequestType",
    "Result",
    "Status",
    "StrategyDataManager",
    "SyncStrategyDataManager",
]
