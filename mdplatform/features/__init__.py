"""Features: what they are called, what they need, and what they are worth on given bars.

`parse_feature` reads a declaration, `compute` and `evaluate` run it on arrays; the registry lists what there is.
Importing this does not import the indicator library; the first computation does.
"""

from mdplatform.features.catalogue import Catalogue, standing_catalogue
from mdplatform.features.compute import Evaluation, compute, evaluate
from mdplatform.features.data import Data, Grid, TableData, Truncated, Values
from mdplatform.features.graph import computations, extra_rows, inputs_of, load_from
from mdplatform.features.panel import evaluate_on, frame
from mdplatform.features.parse import FeatureLike, parse_feature
from mdplatform.features.profile import VolumeProfile, volume_profile, volume_profile_of_bars
from mdplatform.features.registry import ALIASES, definition, engine, function_names
from mdplatform.features.spec import FeatureSpec

__all__ = [
    "ALIASES",
    "Catalogue",
    "Data",
    "Evaluation",
    "FeatureLike",
    "FeatureSpec",
    "Grid",
    "TableData",
    "Truncated",
    "Values",
    "VolumeProfile",
    "computations",
    "compute",
    "definition",
    "engine",
    "evaluate",
    "evaluate_on",
    "extra_rows",
    "frame",
    "function_names",
    "inputs_of",
    "load_from",
    "parse_feature",
    "standing_catalogue",
    "volume_profile",
    "volume_profile_of_bars",
]
