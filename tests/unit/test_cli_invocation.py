"""The advice that commands print can be typed in the shell it is printed in."""

import sys

import pytest
from feedrank_cli.invocation import invocation


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The command as a shell would start it by its path."""
    path = tmp_path / "a venv" / "feedrank"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path), "up"])
    return path


def test_advice_names_the_path_where_a_shell_does_not_find_the_command(started, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert invocation() == f"'{started}'"


def test_advice_names_the_command_alone_where_a_shell_finds_this_one(started, monkeypatch):
    monkeypatch.setenv("PATH", str(started.parent))
    assert invocation() == "feedrank"


def test_advice_names_the_path_where_a_shell_finds_another_one(started, monkeypatch, tmp_path):
    other = tmp_path / "feedrank"
    other.write_bytes(started.read_bytes())
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert invocation() == f"'{started}'"


def test_a_program_of_another_name_is_not_advised(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert invocation() == "feedrank"
