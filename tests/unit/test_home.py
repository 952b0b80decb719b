"""Home: where everything lies."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from feedrank_core.runtime.home import Home


def test_every_folder_is_its_own_below_the_root_and_asking_creates_none(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    names = [n for n, member in vars(Home).items() if isinstance(member, property)]
    paths = [getattr(home, name) for name in names]
    assert len(set(paths)) == len(paths)
    assert all(path.parent == home.root for path in paths)
    assert not home.root.exists()
    assert [f.name for f in fields(home)] == ["root"]
