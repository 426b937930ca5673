"""Features: what they are called, what they need, and what they are worth on given bars.

`parse_feature` reads a declaration, `compute` and `evaluate` run it on arrays; the registry lists what there is.
Importing this does not import the indicator library; the first computation does.
"""

from mdplatform.features.catalogue import Catalogue, standing_catalogue
from mdplatform.features.composites import Composite, register_composite
from mdplatform.features.compute import Evaluation, compute, evaluate
from mdplatform.features.correlation.beta import beta_to
from mdplatform.features.correlation.clusters import Clusters, SpanningTree, clusters, spanning_tree
from mdplatform.features.correlation.lead_lag import LeadLag, lead_lag
from mdplatform.features.correlation.matrix import correlation_matrix, repaired
from mdplatform.features.correlation.panels import Panel, log_returns
from mdplatform.features.correlation.reading import correlation_of
from mdplatform.features.correlation.result import Correlations
from mdplatform.features.correlation.rolling import RollingCorrelations, rolling_correlation
from mdplatform.features.data import Data, Grid, TableData, Truncated, Values
from mdplatform.features.flow.book import book_features
from mdplatform.features.flow.footprint import Footprint, footprint
from mdplatform.features.flow.order_flow import OrderFlow, order_flow
from mdplatform.features.flow.trade_bars import cusum_events, dollar_bars, imbalance_bars, tick_bars, volume_bars
from mdplatform.features.graph import computations, extra_rows, inputs_of, load_from
from mdplatform.features.lookahead import LookaheadReport, check_lookahead
from mdplatform.features.panel import evaluate_on, frame
from mdplatform.features.parse import FeatureLike, parse_feature
from mdplatform.features.profile.volume_profile import VolumeProfile, volume_profile, volume_profile_of_bars
from mdplatform.features.registry import ALIASES, definition, engine, function_names
from mdplatform.features.spec import FeatureSpec

__all__ = [
    "ALIASES",
    "Catalogue",
    "Clusters",
    "Composite",
    "Correlations",
    "Data",
    "Evaluation",
    "FeatureLike",
    "FeatureSpec",
    "Footprint",
    "Grid",
    "LeadLag",
    "LookaheadReport",
    "OrderFlow",
    "Panel",
    "RollingCorrelations",
    "SpanningTree",
    "TableData",
    "Truncated",
    "Values",
    "VolumeProfile",
    "beta_to",
    "book_features",
    "check_lookahead",
    "clusters",
    "computations",
    "compute",
    "correlation_matrix",
    "correlation_of",
    "cusum_events",
    "definition",
    "dollar_bars",
    "engine",
    "evaluate",
    "evaluate_on",
    "extra_rows",
    "footprint",
    "frame",
    "function_names",
    "imbalance_bars",
    "inputs_of",
    "lead_lag",
    "load_from",
    "log_returns",
    "order_flow",
    "parse_feature",
    "register_composite",
    "repaired",
    "rolling_correlation",
    "spanning_tree",
    "standing_catalogue",
    "tick_bars",
    "volume_bars",
    "volume_profile",
    "volume_profile_of_bars",
]
