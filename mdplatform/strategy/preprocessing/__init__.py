"""Preprocessing for models: fitted on the training slice alone, the same numbers in training and live.

from mdplatform.strategy.preprocessing import LogReturns, MissingData, Preprocessing, RobustZScore, Windows

preprocessing = Preprocessing([LogReturns(), MissingData("drop"), RobustZScore(), Windows(64)])
samples = preprocessing.fit(frame, until="2025-06-01").transform(frame)
preprocessing.save("preprocessing.json")

live = Preprocessing.load("preprocessing.json").live(history)
sample = live.update(row)
"""

from mdplatform.strategy.preprocessing.columnwise import Columnwise
from mdplatform.strategy.preprocessing.differencing import FractionalDifference
from mdplatform.strategy.preprocessing.live import LivePreprocessing
from mdplatform.strategy.preprocessing.missing import MissingData
from mdplatform.strategy.preprocessing.pipeline import Preprocessing
from mdplatform.strategy.preprocessing.returns import LogReturns
from mdplatform.strategy.preprocessing.scaling import RobustZScore, RollingZScore, Winsorize
from mdplatform.strategy.preprocessing.schema import Column, Schema
from mdplatform.strategy.preprocessing.splits import PurgedKFold, WalkForward, train_validation
from mdplatform.strategy.preprocessing.step import Step
from mdplatform.strategy.preprocessing.windows import Samples, Windows

__all__ = [
    "Column",
    "Columnwise",
    "FractionalDifference",
    "LivePreprocessing",
    "LogReturns",
    "MissingData",
    "Preprocessing",
    "PurgedKFold",
    "RobustZScore",
    "RollingZScore",
    "Samples",
    "Schema",
    "Step",
    "WalkForward",
    "Windows",
    "Winsorize",
    "train_validation",
]
