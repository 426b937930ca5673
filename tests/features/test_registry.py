"""The registry's frozen file is what the installed TA-Lib says; where they differ, somebody has to decide."""

import json
import subprocess
import sys
from importlib import resources

import pytest
import talib

from mdplatform.errors import UnknownFeature
from mdplatform.features import ALIASES, definition, engine, function_names
from mdplatform.features.generate import as_text, describe_library
from mdplatform.features.registry import CUMULATIVE, indicator_names

WHAT_TO_DO = (
    "The installed TA-Lib differs from mdplatform/features/talib_functions.json."
    " Run `python -m mdplatform.features.generate`, read the difference, and commit it:"
    " every value computed with what changed gets another identity."
)


def test_the_frozen_file_is_what_the_installed_library_says() -> None:
    frozen = resources.files("mdplatform.features").joinpath("talib_functions.json").read_text(encoding="utf-8")
    installed = describe_library()
    assert json.loads(frozen) == installed, WHAT_TO_DO
    assert frozen == as_text(installed), WHAT_TO_DO


def test_all_functions_of_the_library_are_registered() -> None:
    assert set(indicator_names()) == set(talib.get_functions())
    assert len(indicator_names()) == 201


def test_the_engine_names_both_versions() -> None:
    assert engine() == f"talib {talib.__version__} (C {talib.__ta_version__.decode().split()[0]})"


@pytest.mark.parametrize("name", indicator_names())
def test_every_definition_is_complete(name: str) -> None:
    stated = definition(name)
    assert stated.name == name
    assert stated.title
    assert stated.inputs
    assert stated.outputs
    free = [each.free for each in stated.inputs]
    assert free == sorted(free, reverse=True), "inputs that may be named come first"
    for each in stated.parameters:
        if each.kind == "choice":
            assert each.default in each.choices
        else:
            assert each.minimum <= each.default <= each.maximum


def test_cumulative_functions_have_an_anchor_and_no_others() -> None:
    with_anchor = {name for name in indicator_names() if "anchor" in definition(name).defaults}
    assert with_anchor == CUMULATIVE
    assert all(definition(name).defaults["anchor"] == "month" for name in CUMULATIVE)


def test_aliases_do_not_hide_a_function() -> None:
    assert not set(ALIASES) & set(function_names())


def test_defaults_that_moved_between_versions_are_stated() -> None:
    assert definition("BBANDS").defaults == {"timeperiod": 20, "nbdevup": 2.0, "nbdevdn": 2.0, "matype": 0}
    assert definition("APO").defaults["matype"] == 1
    assert definition("STDDEV").defaults == {"timeperiod": 5, "nbdev": 1.0}


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownFeature, match="BBANDS"):
        definition("BBAND")


def test_importing_features_does_not_import_the_library() -> None:
    program = "import sys, mdplatform.features as f; f.parse_feature('RSI'); print('talib' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "False"
