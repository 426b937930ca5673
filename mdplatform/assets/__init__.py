"""The assets: what the platform materializes, per partition. Each is thin over `market`, `features` and `lake`."""

import warnings

import dagster as dg

# partition mappings and backfill policies are beta in Dagster 1.13; the version is pinned, so the warning says nothing
warnings.filterwarnings("ignore", category=dg.BetaWarning)
