"""Automation: partitions whose inputs have changed are materialized again, and no others.

The condition reads the lake (`assets.following`), not Dagster's event log: which partitions are stale is a matter of
what their values were computed from. A partition is asked for once for each change: when its inputs have stood still
for a tick, so that a run that is under way may end, and that many corrections in a row cost one run. If that run fails,
it is asked for again when the inputs change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import dagster as dg

from mdplatform.assets import (
    composite_indicators,
    correlation_matrix,
    macro_features,
    order_flow,
    returns_panel,
    sentiment_features,
    technical_indicators,
    volume_profile,
)
from mdplatform.assets.following import Following, watch
from mdplatform.assets.partitions import partition_key
from mdplatform.settings import Settings

FOLLOWED: Mapping[str, Following] = {
    "technical_indicators": technical_indicators.FOLLOWING,
    "returns_panel": returns_panel.FOLLOWING,
    "volume_profile": volume_profile.FOLLOWING,
    "order_flow": order_flow.FOLLOWING,
    "sentiment_features": sentiment_features.FOLLOWING,
    "macro_features": macro_features.FOLLOWING,
    "composite_indicators": composite_indicators.FOLLOWING,
    "correlation_matrix": correlation_matrix.FOLLOWING,
}
"""The assets that are materialized again by themselves; a new one is one line here."""


class InputsChanged(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that are stale, once for each change of their inputs."""

    @property
    def description(self) -> str:
        """What the UI says of it."""
        return "What the partition was computed from has changed in the lake"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Compare each partition's inputs with those it was computed from."""
        asset = context.key.to_user_string()
        now = watch(Settings.load().lake_dir, asset, FOLLOWED[asset]).stale()
        seen: dict[str, list[str]] = json.loads(context.cursor) if context.cursor else {}
        due, cursor = [], {}
        for key, inputs in now.items():
            before, done = seen.get(key, ["", ""])
            asked = inputs == before and inputs != done
            if asked:
                due.append(key)
            cursor[key] = [inputs, inputs if asked else done]
        definition = context.asset_graph.get(context.key).partitions_def
        assert definition is not None
        subset = context.asset_graph_view.get_subset_from_partition_keys(
            context.key, definition, {partition_key(key) for key in due}
        )
        true = context.candidate_subset.compute_intersection(subset)
        return dg.AutomationResult(context, true, cursor=json.dumps(cursor))


def automated(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Give the asset its condition, if it is one that follows."""
    if spec.key.to_user_string() not in FOLLOWED:
        return spec
    return spec.replace_attributes(automation_condition=InputsChanged())


automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.assets(*FOLLOWED),
    use_user_code_server=True,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Materializes partitions again whose inputs have changed: corrections flow downstream by themselves.",
)
