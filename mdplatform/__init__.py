"""A Dagster-orchestrated market-data platform for trading strategies."""

__version__ = "0.1.0"
