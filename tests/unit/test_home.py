"""Home: where everything lies."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from feedrank_core.runtime.home import DEFAULT_HOME, HOME_VARIABLE, Home


def test_the_variable_names_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "elsewhere"))
    assert Home.from_environment().root == tmp_path / "elsewhere"


def test_without_the_variable_it_is_a_folder_of_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert Home.from_environment().root == tmp_path / DEFAULT_HOME


def test_a_relative_home_stays_where_it_was_when_the_process_moves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, "here")
    home = Home.from_environment()
    monkeypatch.chdir("/")
    assert home.root == tmp_path / "here"


def test_every_folder_is_its_own_below_the_root_and_asking_creates_none(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    names = [n for n, member in vars(Home).items() if isinstance(member, property)]
    paths = [getattr(home, name) for name in names]
    assert len(set(paths)) == len(paths)
    assert all(path.parent == home.root for path in paths)
    assert not home.root.exists()
    assert [f.name for f in fields(home)] == ["root"]
