"""The documents say what is so: their Python runs, their commands take those options, their links lead somewhere."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from mdplatform.cli import frame, main
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.composites import standing_composites
from mdplatform.features.formula.nodes import DEEPEST, FUNCTIONS, LONGEST_WINDOW, MOST_NODES
from mdplatform.features.formula.operations import GREATEST_POWER
from mdplatform.features.formula.tokens import MAXIMUM_LENGTH
from mdplatform.features.guard import STATUSES
from mdplatform.features.registry import definition, function_names
from mdplatform.ingest import kinds
from mdplatform.market.bars import BAR_SCHEMA, STATES, VALUE_COLUMNS
from mdplatform.market.rules import RULES
from mdplatform.market.table_rules import TABLE_RULES
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings
from mdplatform.sources import macro_files, sentiment_files, trade_files

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
    group = GROUP
    while arguments:
        name, *arguments = arguments
        assert name in group.commands, f"{name} is neither a command nor an option"
        command = group.commands[name]
        alone = getattr(command, "invoke_without_command", False) and arguments[:1] and arguments[0].startswith("-")
        if not hasattr(command, "commands") or alone:
            command.make_context(name, arguments)
            return
        group = command


@pytest.mark.parametrize("line", platform_lines(), ids=str)
def test_every_command_line_has_arguments_that_the_command_takes(line: Block) -> None:
    check_arguments(shlex.split(line.text)[1:])


def test_every_command_that_is_named_is_there() -> None:
    named = {shlex.split(line.text)[1] for line in inline_commands()}
    assert named - {"COMMAND"} <= set(GROUP.commands)


@pytest.mark.parametrize(
    "wrong",
    ["read BTCUSDT RSI --bars 15m", "reed BTCUSDT RSI", "ui --port many", "sql", "formula chek x", "formula check"],
)
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


@pytest.mark.parametrize("command", ["read", "sql", "features", "doctor", "check-lookahead", "formula list"])
def test_commands_of_the_documents_that_only_read_do_so_on_a_market(
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


def shown_formulas() -> list[tuple[Block, str]]:
    """Give each block that is a single `formula check`, with what the page shows that it prints."""
    pairs = []
    for block in blocks("sh"):
        line = block.text.strip()
        if line.startswith("mdplatform formula check") and "\n" not in line:
            _, _, after = block.page.read_text(encoding="utf-8").partition(f"{line}\n```\n\n```text\n")
            pairs.append((Block(block.page, block.line, "sh", line), after.partition("```")[0]))
    return pairs


@pytest.mark.parametrize(("line", "shown"), shown_formulas(), ids=lambda each: str(each)[:40])
def test_a_formula_that_is_checked_in_a_document_gives_what_is_shown(
    line: Block,
    shown: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(frame.out, "_width", 120)
    monkeypatch.setattr(sys, "argv", shlex.split(line.text))
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert shown
    assert shown == (told.err if shown.startswith("error:") else told.out)
    assert bool(ended.value.code) == shown.startswith("error:")


@pytest.fixture
def run_example(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Runs an example as `__main__` of this process, and gives what it printed; it leaves no file behind."""

    def run(name: str) -> str:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        assert list(tmp_path.glob("mdplatform-*")) == []
        return capsys.readouterr().out

    return run


def run_alone(name: str, tmp_path: Path) -> str:
    """Run an example in a process of its own, and give what it printed; it leaves no file behind."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.glob("mdplatform-*")) == []
    return ended.stdout


def test_every_example_is_held_to_what_it_prints() -> None:
    held = re.findall(r'run_(?:example|alone)\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8"))
    assert sorted(held) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_the_example_of_a_reader_runs_to_its_end_and_leaves_nothing(run_example: Callable[[str], str]) -> None:
    shown = run_example("read_features.py")
    assert "5,947 bars taken" in shown
    assert re.search(r"^RSI \d+\.\d\d, known from 2025-02-01 00:00, from cache$", shown, re.MULTILINE)
    assert re.search(r"^ETHUSDT KAMA\(timeperiod=30\) [\d.]+ computed 2025-01-31T23:00:00Z$", shown, re.MULTILINE)
    assert len(re.findall(r"USDT bands [\d.]+ … [\d.]+, read in", shown)) == 2


def test_the_example_of_a_training_set_looks_nowhere_ahead_and_is_what_a_strategy_reads(
    run_example: Callable[[str], str],
) -> None:
    shown = run_example("training_frame.py")
    assert "960 rows, " in shown
    assert re.search(r"^  RSI\(timeperiod=14\)@4h = [\d.]+, \w+, 1:00:00 old$", shown, re.MULTILINE)
    assert re.search(r"^fitted on \d{3} rows, right about the sign of \d+% of \d{3} later ones$", shown, re.MULTILINE)
    assert "\nno look-ahead\n__main__:cheating at " in shown
    assert shown.endswith("what a strategy reads is the frame's newest row: True\n")


def test_the_example_of_profile_and_flow_tells_both(run_example: Callable[[str], str]) -> None:
    shown = run_example("profile_and_flow.py")
    assert "POC 50017.5, value area 49975.0 … 50080.0 of 19,972.617, by trades" in shown
    assert re.search(r"^delta 1,684\.945, CVD at the end 1,684\.945, taker ratio 0\.542$", shown, re.MULTILINE)


def test_the_example_of_a_strategy_that_asks_is_answered_at_every_priority(tmp_path: Path) -> None:
    shown = run_alone("request_indicators.py", tmp_path)
    assert re.search(r"^ok in [\d.]+ ms, 8 results$", shown, re.MULTILINE)
    assert re.search(
        r"^  BTCUSDT  5m  macd \S+  macdsignal \S+  macdhist \S+  settled, \w+, known at ", shown, re.MULTILINE
    )
    assert "400 requests at once, 400 of them ok" in shown
    assert re.findall(r"^  ([A-Z]+) +median", shown, re.MULTILINE) == ["CRITICAL", "HIGH", "NORMAL", "LOW"]


def test_the_example_of_a_composite_is_answered_again_when_bars_come(run_example: Callable[[str], str]) -> None:
    shown = run_example("request_composite.py")
    assert "  RSI / PRICE_STDD\n        ^" in shown
    assert re.search(
        r"^ok: 15m \S+ known at 2025-02-01 00:00, 1h \S+ known at 2025-02-01 00:00 in ", shown, re.MULTILINE
    )
    assert re.search(r"^standing, 2: ok: 15m \S+ known at 2025-03-01 00:00", shown, re.MULTILINE)


def test_the_example_of_a_subscription_has_frames_live_and_from_history(tmp_path: Path) -> None:
    shown = run_alone("subscribe.py", tmp_path)
    assert len(re.findall(r"^  2025-02-01 .+ BTCUSDT 5m close [\d,.]+  RSI .+ [\d.]+ ms$", shown, re.MULTILINE)) == 12
    assert re.search(r"^tensor \(3, 64, \d+\) of float32, [\d.]+ % of it known$", shown, re.MULTILINE)
    assert len(re.findall(r"^  2025-01-30 .+ complete  from history$", shown, re.MULTILINE)) == 12
    assert "288 frames of history in" in shown


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


def test_the_tables_of_functions_say_what_the_registry_says() -> None:
    page = read("docs/features.md")
    made = runpy.run_path(str(ROOT / "docs" / "make_features.py"))
    assert page == made["refreshed"](page), "Refresh them: .venv/bin/python docs/make_features.py"
    for kind in made["TABULATED"]:
        functions = [each for each in function_names() if definition(each).kind == kind]
        assert re.search(rf"^\| \[{kind}\]\(#[\w-]+\) \| {len(functions)} \|", page, re.MULTILINE)


def test_the_pages_on_data_list_the_rules_and_the_names_of_columns_of_the_code() -> None:
    page = read("docs/data.md")
    assert first_cells("Rules of rows", "docs/data.md") == list(TABLE_RULES)
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page.partition("## Rules of rows")[2], re.MULTILINE))
    assert {name: told.get(name) for name in TABLE_RULES} == TABLE_RULES
    headings = {"Trades": trade_files, "Sentiment": sentiment_files, "Macro series": macro_files}
    for heading, reader in headings.items():
        section = re.split(r"^## ", page.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
        assert rows == {ours: ", ".join(theirs.split()) for ours, theirs in reader.SPELLINGS.items()}
    assert re.findall(r"^\| `(\w+)`(?: \(the default\))? \| .+ \| .+ \| .+ \|$", page, re.MULTILINE) == [
        *sorted(kinds(), key=["bars", "trades", "recording", "sentiment", "macro"].index)
    ]


def test_the_page_on_formulas_lists_the_functions_and_the_bounds_of_the_language() -> None:
    page = read("docs/formulas.md")
    functions = page.partition("## The language")[2].partition("\n\n- ")[0]
    told = re.findall(r"`([a-z]+)\(", functions.partition("| of one row |")[2].partition("| elsewhere |")[0])
    assert sorted(told) == sorted(FUNCTIONS)
    assert f"`{' '.join(VALUE_COLUMNS)}`" in functions
    for bound in (MAXIMUM_LENGTH, DEEPEST, MOST_NODES, LONGEST_WINDOW, GREATEST_POWER):
        assert f"{bound:,}" in page
    assert f"(`features/composites.yaml`: {', '.join(each.name for each in standing_composites())})" in " ".join(
        page.split()
    )


def test_the_page_on_the_architecture_lists_the_assets_and_where_they_are_kept() -> None:
    from mdplatform.definitions import defs

    graph = defs().resolve_asset_graph() if callable(defs) else defs.resolve_asset_graph()
    there = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert set(first_cells("The assets", "docs/architecture.md")) == there


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
