"""A feature's text and id are the same in every process, tell features apart, and lead back to the feature."""

import json
import os
import subprocess
import sys

import pytest

from mdplatform.features import FeatureSpec, parse_feature

PROGRAM = """
import json, sys
from mdplatform.features import parse_feature
from mdplatform.features.registry import indicator_names
print(json.dumps({name: [str(parse_feature(name)), parse_feature(name).at("1h").id] for name in indicator_names()}))
assert "talib" not in sys.modules, "naming features needs no library"
"""


@pytest.fixture(scope="module")
def told_elsewhere() -> dict[str, list[str]]:
    """Names and ids as another process tells them, which hashes texts differently."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    told: dict[str, list[str]] = json.loads(ran.stdout)
    return told


def test_names_and_ids_are_the_same_in_every_process(
    feature: FeatureSpec, told_elsewhere: dict[str, list[str]]
) -> None:
    assert told_elsewhere[feature.name] == [str(feature), feature.at("1h").id]


def test_the_canonical_text_leads_back_to_the_feature(variant: FeatureSpec) -> None:
    assert parse_feature(str(variant)) == variant
    for output in variant.definition.outputs:
        one = parse_feature(f"{variant}.{output}")
        assert parse_feature(str(one)) == one


def test_other_parameters_are_another_identity(variant: FeatureSpec) -> None:
    default = parse_feature(variant.name)
    assert variant.id != default.id
    assert str(variant) != str(default)
