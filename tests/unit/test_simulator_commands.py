"""`python -m feedrank_simulator`: what a person types and reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from feedrank_simulator.__main__ import app
from feedrank_simulator.parts import TABLES
from feedrank_simulator.recipe import Recipe, RecipeError
from typer.testing import CliRunner

SMALL = ["--users", "40", "--items", "80", "--days", "2", "--end", "2026-01-15"]


def test_bulk_writes_every_table_and_the_recipe_and_prints_the_rows(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bulk", "--out", str(tmp_path), *SMALL])
    assert result.exit_code == 0, result.output
    for name in TABLES:
        assert (tmp_path / f"{name}.parquet").exists()
        assert name in result.output
    recipe = Recipe.read(tmp_path)
    assert recipe == Recipe(
        seed=1, users=40, items=80, days=2, end=datetime(2026, 1, 15, tzinfo=UTC)
    )
    assert recipe.world().num_items == 80


def test_bulk_again_without_an_end_continues_to_the_end_of_the_first_run(tmp_path: Path) -> None:
    first = CliRunner().invoke(app, ["bulk", "--out", str(tmp_path), *SMALL])
    again = CliRunner().invoke(app, ["bulk", "--out", str(tmp_path), *SMALL[:-2]])
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    assert "peak memory of all processes" in again.stdout


def test_bulk_into_the_folder_of_another_history_names_what_differs(tmp_path: Path) -> None:
    CliRunner().invoke(app, ["bulk", "--out", str(tmp_path), *SMALL])
    result = CliRunner().invoke(app, ["bulk", "--out", str(tmp_path), *SMALL, "--seed", "9"])
    assert result.exit_code == 1
    assert "world's seed 1 (not 9)" in result.output


def test_bulk_into_a_file_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["bulk", "--out", str(tmp_path / "file"), *SMALL])
    assert result.exit_code == 1
    assert "file: cannot be written" in result.output


@pytest.mark.parametrize("bad", [["--users", "0"], ["--days", "-1"], ["--seed", "-1"]])
def test_sizes_out_of_range_are_refused(bad: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bulk", "--out", str(tmp_path), *bad])
    assert result.exit_code == 2
    assert bad[0] in result.output


def test_live_without_a_system_says_so_in_one_line(tmp_path: Path) -> None:
    Recipe(seed=1, users=5, items=5, days=1, end=datetime(2026, 1, 15, tzinfo=UTC)).write(tmp_path)
    result = CliRunner().invoke(
        app, ["live", "--world", str(tmp_path), "--gateway", "http://127.0.0.1:9"]
    )
    assert result.exit_code == 1
    assert "is it up?" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", [None, "{", '{"seed": 1}'])
def test_a_recipe_that_is_none_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "world.json").write_text(content)
    with pytest.raises(RecipeError, match=r"world\.json"):
        Recipe.read(tmp_path)
    result = CliRunner().invoke(app, ["live", "--world", str(tmp_path)])
    assert result.exit_code == 1
    assert "world.json" in result.output
