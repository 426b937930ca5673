"""The documents say what is so: their Python runs, their commands take those options, their links lead somewhere."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from mdplatform.cli import frame, main
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.guard import STATUSES
from mdplatform.market.bars import BAR_SCHEMA, STATES
from mdplatform.market.rules import RULES
from mdplatform.market.timeframe import Timeframe

from .blocks import PAGES, ROOT, Block, blocks, inline_commands, shell_lines

GROUP: Any = typer.main.get_command(frame.app)
PROGRAMS = ("mdplatform", ".venv/bin/mdplatform")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def platform_lines() -> list[Block]:
    lines = [line for line in shell_lines() if shlex.split(line.text)[0] in PROGRAMS]
    # in running text a command may be named alone; what is elided or general is no command line
    lines += [line for line in inline_commands() if len(shlex.split(line.text)) > 2]
    return [line for line in lines if "…" not in line.text]


def check_arguments(arguments: list[str]) -> None:
    """Parse as the command line does, without running anything; raises what a user would see."""
    while arguments and arguments[0] not in GROUP.commands:
        assert arguments[0] in ("--home", "--version", "--help"), f"{arguments[0]} is neither a command nor an option"
        arguments = arguments[2 if arguments[0] == "--home" else 1 :]
    if arguments:
        GROUP.commands[arguments[0]].make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("line", platform_lines(), ids=str)
def test_every_command_line_has_arguments_that_the_command_takes(line: Block) -> None:
    check_arguments(shlex.split(line.text)[1:])


def test_every_command_that_is_named_is_there() -> None:
    named = {shlex.split(line.text)[1] for line in inline_commands()}
    assert named - {"COMMAND"} <= set(GROUP.commands)


@pytest.mark.parametrize("wrong", ["read BTCUSDT RSI --bars 15m", "reed BTCUSDT RSI", "ui --port many", "sql"])
def test_a_wrong_command_line_in_a_document_would_be_found(wrong: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|neither a command|valid integer|missing"):
        check_arguments(wrong.split())


def test_the_readme_shows_every_command() -> None:
    shown = {shlex.split(line.text)[1] for line in shell_lines() if line.text.startswith("mdplatform ")}
    assert set(GROUP.commands) <= shown


def test_every_make_target_in_the_documents_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    used = {match for page in PAGES for match in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert used
    assert used <= targets


def test_every_other_shell_line_starts_a_program_that_is_there() -> None:
    known = ("make ", "export ", "python -m mdplatform.", ".venv/bin/python ", *(f"{each} " for each in PROGRAMS))
    assert [str(line) for line in shell_lines() if not line.text.startswith(known)] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_block_runs(block: Block, market: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", ["read", "sql", "features", "doctor"])
def test_commands_of_the_readme_that_only_read_do_so_on_a_market(
    command: str, market: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in shell_lines() if line.text.startswith(f"mdplatform {command}")]
    assert lines
    monkeypatch.setattr(frame.out, "_width", 200)
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line.text))
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert not ended.value.code, f"{line}: {shown.err}"
        assert shown.out.strip()


def test_the_example_runs_to_its_end_and_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "read_features.py")],
        env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "5,947 bars taken" in ended.stdout
    assert re.search(r"^RSI \d+\.\d\d, known from 2025-02-01 00:00, from cache$", ended.stdout, re.MULTILINE)
    assert re.search(
        r"^ETHUSDT KAMA\(timeperiod=30\) [\d.]+ computed 2025-01-31T23:00:00Z$", ended.stdout, re.MULTILINE
    )
    assert len(re.findall(r"USDT bands [\d.]+ … [\d.]+, read in", ended.stdout)) == 2
    assert list(tmp_path.glob("mdplatform-*")) == []


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in headings(linked), f"{page.name} links to {target}"


def test_the_table_of_settings_says_what_the_code_says() -> None:
    page = read("docs/settings.md")
    refreshed = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))["refreshed"]
    assert page == refreshed(page), "Refresh it: .venv/bin/python docs/make_settings.py"


def first_cells(heading: str, page: str = "docs/conventions.md") -> list[str]:
    """Give the first cell of each row of the table below a heading, its names one by one."""
    section = re.split(r"^#+ ", read(page).partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)[1:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_conventions_list_the_columns_states_rules_and_statuses_of_the_code() -> None:
    conventions = read("docs/conventions.md")
    assert f"`{', '.join(BAR_SCHEMA)}`" in " ".join(conventions.split())
    assert f"`{' '.join(Timeframe)}`" in conventions
    assert first_cells("States") == list(STATES)
    assert first_cells("Status") == list(STATUSES)
    rules = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", conventions.partition("### Row rules")[2], re.MULTILINE))
    assert {name: rules.get(name) for name in RULES} == RULES
    assert first_cells("Row rules") == list(RULES)


def test_the_catalogue_that_is_told_is_the_catalogue_that_is() -> None:
    catalogue = standing_catalogue()
    page = read("docs/features.md").partition("## The standing catalogue")[2].partition("\n## ")[0]
    columns = sum(len(feature.columns) for feature in catalogue.features)
    assert f"{len(catalogue.features)} features ({columns} columns)" in page
    told = re.findall(r"([A-Z]{3,})\(", page.partition("| group |")[2].partition("\n\n")[0])
    assert told == [feature.name for feature in catalogue.features]


def test_the_depth_of_history_that_is_told_is_the_catalogues() -> None:
    from mdplatform.assets.partitions import months_of_history

    days = standing_catalogue().history("1d").days
    assert f"{days} daily bars (ADX), so {months_of_history()} months" in read("docs/features.md")
    assert f"{days} daily bars" in read("docs/architecture.md")


def test_the_changes_name_the_version_of_the_package() -> None:
    from mdplatform import __version__

    assert f"## {__version__}" in read("CHANGELOG.md")


def test_every_decision_has_its_parts_and_its_number() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:4]} ")
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "What would change it"))
