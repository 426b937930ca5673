"""What a strategy imports. It is light: the heavy libraries come in when a reader or a manager is made, not before; or
where the classes of frames themselves are imported, which annotations alone have a use for.

from mdplatform.strategy import DataPriority, FeatureReader, StrategyDataManager

with FeatureReader() as reader:
    rsi = reader.latest("BTCUSDT", "RSI(timeperiod=14)", timeframe="15m", n=200)
    print(rsi.values[-1], rsi.available_at, rsi.source, rsi.version)

async with StrategyDataManager() as manager:
    request_id = await manager.request_technical_indicators(
        strategy_id="momentum", symbols=["BTCUSDT"], indicators=["RSI"], timeframes=["15m"], priority=DataPriority.HIGH
    )
    print(await manager.result(request_id))

async with EnhancedMarketDataConsumer() as consumer:
    async for frame in consumer.frames(["BTCUSDT", "ETHUSDT"], ["5m", "1h"]):
        print(frame.time, frame["BTCUSDT", "5m"]["RSI"], frame.missing)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdplatform.messaging.priority import DataPriority
    from mdplatform.requests.answer import Answer, Progress, Status
    from mdplatform.requests.request import Refresh, RequestType
    from mdplatform.requests.result import Result
    from mdplatform.strategy.consumer import EnhancedMarketDataConsumer
    from mdplatform.strategy.manager import StrategyDataManager
    from mdplatform.strategy.pending import OpenRequest
    from mdplatform.strategy.reader import AsyncFeatureReader, FeatureReader
    from mdplatform.strategy.sync_consumer import SyncMarketDataConsumer
    from mdplatform.strategy.sync_manager import SyncStrategyDataManager
    from mdplatform.streaming.cell_status import CellStatus
    from mdplatform.streaming.frame import Frame
    from mdplatform.streaming.frame_cell import FrameCell

__all__ = [
    "Answer",
    "AsyncFeatureReader",
    "CellStatus",
    "DataPriority",
    "EnhancedMarketDataConsumer",
    "FeatureReader",
    "Frame",
    "FrameCell",
    "OpenRequest",
    "Progress",
    "Refresh",
    "RequestType",
    "Result",
    "Status",
    "StrategyDataManager",
    "SyncMarketDataConsumer",
    "SyncStrategyDataManager",
]

_MODULES = {
    "mdplatform.messaging.priority": ("DataPriority",),
    "mdplatform.requests.answer": ("Answer", "Progress", "Status"),
    "mdplatform.requests.request": ("Refresh", "RequestType"),
    "mdplatform.requests.result": ("Result",),
    "mdplatform.strategy.consumer": ("EnhancedMarketDataConsumer",),
    "mdplatform.strategy.manager": ("StrategyDataManager",),
    "mdplatform.strategy.pending": ("OpenRequest",),
    "mdplatform.strategy.reader": ("AsyncFeatureReader", "FeatureReader"),
    "mdplatform.strategy.sync_consumer": ("SyncMarketDataConsumer",),
    "mdplatform.strategy.sync_manager": ("SyncStrategyDataManager",),
    "mdplatform.streaming.cell_status": ("CellStatus",),
    "mdplatform.streaming.frame": ("Frame",),
    "mdplatform.streaming.frame_cell": ("FrameCell",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what is asked for, when it is asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
