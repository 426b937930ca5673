"""The page on HTTP and the example in TypeScript do what they say, against a live gateway."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from mdplatform.gateway.routes.answers import PATH
from mdplatform.requests.making import MAKERS
from mdplatform.requests.request import RequestType

from .conftest import Gateway

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples" / "typescript" / "request.ts").read_text(encoding="utf-8")
CURLS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def environment(gateway: Gateway) -> dict[str, str]:
    key = gateway.key("examples", strategies=["momentum_*"])
    return {**os.environ, "MDPLATFORM_GATEWAY": gateway.url, "MDPLATFORM_KEY": key, "NO_PROXY": "*"}


@pytest.mark.parametrize("block", CURLS, ids=range(len(CURLS)))
def test_every_block_of_curl_is_answered(block: str, environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace("curl -s", "curl -s --fail-with-body -w '\\n'")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for line in ended.stdout.splitlines():
        if line:
            told = json.loads(line)
            assert told.get("status") in (None, "ok", "open"), told
            assert all(each["status"] == "ok" for each in told.get("results", ()) if "answer" in each)
    for written in tmp_path.glob("*.arrow"):
        assert pa.ipc.open_stream(written.read_bytes()).read_all().num_rows == 500


def without_types(source: str) -> str:
    """Take the types out of TypeScript as it is written here, for a Node that does not do it by itself."""
    source = re.sub(r"^(?:interface \w+ \{.*?^\}|declare [^\n]*)\n", "", source, flags=re.MULTILINE | re.DOTALL)
    source = re.sub(r"(?<=function call)<Told>", "", source)
    source = re.sub(r" as string\b", "", source)
    kind = (
        r"(?:Promise<\w+>|\([^()]*\([^()]*\) => void\) => void|\([^()]*\) => void|\b(?:string|object|Answer|Problem)\b)"
    )
    return re.sub(rf"\??: {kind}(?:\[\])?(?=[,)=; ])", "", source)


def test_the_example_in_typescript_runs_to_its_end(environment: dict[str, str], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, re.findall(r"\d+", told)[:2]))
    if version < (20, 10):
        pytest.skip(f"Node {told.strip()} has no WebSocket; 20.10 and later do")
    if version >= (22, 6):
        script = tmp_path / "request.mts"
        script.write_text(EXAMPLE, encoding="utf-8")
        options = ["--experimental-strip-types"]
    else:
        script = tmp_path / "request.mjs"
        script.write_text(without_types(EXAMPLE), encoding="utf-8")
        options = ["--experimental-websocket"]
    ended = subprocess.run(
        [node, "--no-warnings", *options, str(script)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    values = [line for line in lines if re.match(r"(BTC|ETH)USDT (15m|1h) (RSI|MACD)\(.*\"settled\":true", line)]
    assert len(values) == 8, ended.stdout
    assert "refused: indicators[0]: Unknown feature: RSY. Nearest known: RSI" in lines
    assert lines[-2:] == ["update true ok ", "update false ok and the last"]


def test_the_page_shows_the_example_as_it_is() -> None:
    shown = re.findall(r"^```ts\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    assert all(block in EXAMPLE for block in shown)


def test_the_page_tells_every_type_with_its_fields() -> None:
    import inspect

    told = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert set(told) == set(RequestType)
    for kind, maker in MAKERS.items():
        own = {each.name for each in inspect.signature(maker).parameters.values() if each.kind is not each.VAR_KEYWORD}
        assert own - {"strategy_id"} <= set(re.findall(r"`(\w+)`", told[kind]))


def test_the_page_tells_every_operation_and_status(gateway: Gateway) -> None:
    with gateway.client() as client:
        schema = client.get("/openapi.json").json()
    statuses = {status for each in schema["paths"].values() for told in each.values() for status in told["responses"]}
    errors = set(re.findall(r"\b4\d\d\b|\b5\d\d\b", PAGE.partition("## Errors")[2].partition("## Keys")[0]))
    assert {each for each in statuses if each >= "400"} <= errors
    for path in (*schema["paths"], PATH):
        assert path.replace("request_id", "id") in PAGE or path in PAGE
