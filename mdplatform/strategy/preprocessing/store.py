"""A fitted preprocessing as one JSON file: its schema, its steps, what they learned, and a checksum.

Nothing in the file is run when it is read: steps are found by name on a list, and numbers come back with all their
bits. `version` is that of this layout; a file of another one is refused.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from mdplatform.errors import PlatformError
from mdplatform.strategy.preprocessing.differencing import FractionalDifference
from mdplatform.strategy.preprocessing.missing import MissingData
from mdplatform.strategy.preprocessing.pipeline import Preprocessing
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.returns import LogReturns
from mdplatform.strategy.preprocessing.scaling import RobustZScore, RollingZScore, Winsorize
from mdplatform.strategy.preprocessing.schema import Schema
from mdplatform.strategy.preprocessing.step import State, Step
from mdplatform.strategy.preprocessing.windows import Windows

FORMAT = "mdplatform.preprocessing"
VERSION = 2
STEPS: dict[str, type[Step]] = {
    each.__name__: each
    for each in (LogReturns, Winsorize, RobustZScore, RollingZScore, FractionalDifference, MissingData, Windows)
}


class SavedStep(msgspec.Struct):
    """A step: its name in the pipeline, its class, its parameters, and what `Step.state` gave."""

    name: str
    step: str
    parameters: dict[str, Any]
    fitted: State


class File(msgspec.Struct):
    """What the file holds, besides its checksum."""

    format: str
    version: int
    schema: Schema
    across_holes: bool
    steps: list[SavedStep]


def save(preprocessing: Preprocessing, path: Path) -> None:
    """Write it: temporary file, fsync, rename."""
    preprocessing.check_whole()
    steps = [
        SavedStep(name, _kind(step), _plain(step.get_params()), step.state())
        for name, step in preprocessing.named_steps.items()
    ]
    file = File(FORMAT, VERSION, preprocessing.schema, preprocessing.across_holes, steps)
    body = msgspec.to_builtins(file)
    text = json.dumps({**body, "checksum": _checksum(body)}, indent=1, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Preprocessing:
    """Read what `save` wrote, and see that the features are what they were."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise refused("There is no such file", value=str(path)) from None
    except (ValueError, OSError) as broken:
        raise refused(
            f"The file cannot be read ({broken})", value=str(path), remedy="Fit and save it again"
        ) from broken
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise refused("The file holds no preprocessing", field="format", value=str(path))
    if body.get("version") != VERSION:
        known = f"This version of the platform reads {VERSION}: fit and save it again"
        raise refused("The file has another layout", field="version", value=body.get("version"), remedy=known)
    if body.pop("checksum", None) != _checksum(body):
        raise refused(
            "The file was changed or damaged", field="checksum", value=str(path), remedy="Fit and save it again"
        )
    try:
        file = msgspec.convert(body, File)
    except msgspec.ValidationError as wrong:
        place = re.search(r"`\$\.([^`]+)`$", str(wrong))
        cause = f"The file is not as it was written ({wrong})"
        raise refused(
            cause, field=place[1] if place else "", value=str(path), remedy="Fit and save it again"
        ) from wrong
    file.schema.check_features()
    steps = [(each.name, _restored(at, each)) for at, each in enumerate(file.steps)]
    made = Preprocessing(steps, timeframe=file.schema.timeframe or None, across_holes=file.across_holes)
    made.schema = file.schema
    made._note_fitted()
    made.check_whole()
    return made


def _kind(step: Step) -> str:
    name = type(step).__name__
    if STEPS.get(name) is not type(step):
        raise refused(
            "Only the platform's own steps can be saved",
            field="steps",
            value=name,
            remedy=f"They are {', '.join(STEPS)}",
        )
    return name


def _restored(at: int, told: SavedStep) -> Step:
    if told.step not in STEPS:
        raise refused("Unknown step", field=f"steps[{at}].step", value=told.step, remedy=f"Known: {', '.join(STEPS)}")
    step = STEPS[told.step]()
    try:
        step.set_params(**told.parameters).restore(told.fitted)
    except PlatformError as error:
        error.field = f"steps[{at}].{error.field}".rstrip(".")
        raise
    return step


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Give parameters as JSON has them: numbers of numpy as Python's, sequences as lists."""
    told = {name: each.item() if hasattr(each, "item") else each for name, each in parameters.items()}
    return {name: list(each) if name == "columns" and each is not None else each for name, each in told.items()}


def _checksum(body: dict[str, Any]) -> str:
    told = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(told.encode(), digest_size=16).hexdigest()
