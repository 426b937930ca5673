"""Runs: materializing assets in this process, as Dagster runs on the platform's own instance."""

from mdplatform.runs.runner import Materialized, Progress, Runs, open_instance, silent

__all__ = ["Materialized", "Progress", "Runs", "open_instance", "silent"]
