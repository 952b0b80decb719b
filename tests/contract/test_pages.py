"""The pages that people read: every link leads somewhere, and every decision is in its index."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer.main
from feedrank_cli.__main__ import app
from feedrank_cli.settings import Settings
from feedrank_core.runtime.settings import variable_of

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DECISIONS = ROOT / "docs" / "decisions"
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(ROOT / name for name in listed.stdout.split("\0") if name)


def links(page: Path) -> list[str]:
    return LINK.findall(CODE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_of_a_page_leads_to_a_file_and_a_heading(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        found = (page.parent / unquote(target)).resolve() if target else page
        assert found.is_relative_to(ROOT) and found.exists(), link
        assert not anchor or anchor in anchors(found), link


def test_contributing_tells_every_variable_that_measurements_and_tests_read():
    read = re.compile(r"environ\.get\(\"(\w+)\"|DATA_VARIABLE = \"(\w+)\"")
    sources = [*(ROOT / "services").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    found = {a or b for source in sources for a, b in read.findall(source.read_text())}
    assert found >= {"FEEDRANK_MOVIELENS", "KAFKA_BOOTSTRAP"}
    told = (ROOT / "CONTRIBUTING.md").read_text()
    assert {name for name in found if f"`{name}`" not in told} == set()


def test_the_index_of_decisions_lists_each_one_under_its_title():
    index = (DECISIONS / "README.md").read_text()
    for page in sorted(DECISIONS.glob("0*.md")):
        [(number, title)] = re.findall(r"\A# (\d+)\. (.+)", page.read_text())
        assert page.name.startswith(f"{int(number):04}-")
        assert f"| {number} | [{title}]({page.name}) |" in index


def test_the_readme_tells_every_command_and_no_other():
    rows = re.findall(r"^\| `feedrank .*?(?=\|)", README.read_text(), re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`(?:feedrank )?([a-z]+)", row)}
    commands = typer.main.get_group(app).commands
    assert told == set(commands)


def test_the_readmes_settings_are_those_of_the_command_line():
    rows = re.findall(r"^\| `(FEEDRANK_\w+)` \| `?([^`|;]+?)`?(?:;[^|]*)? \|$",
                      README.read_text(), re.MULTILINE)  # fmt: skip
    defaults = {
        variable_of(Settings, name): field.default for name, field in Settings.model_fields.items()
    }
    assert len(rows) >= 8
    assert dict(rows) == {
        name: f"{default:g}" if isinstance(default, float) else str(default)
        for name, default in defaults.items()
    }
