"""Every command explains itself by examples, which are calls of that very command."""

import re

import pytest
import typer.main
from feedrank_cli.__main__ import app


def commands(group, path=("feedrank",)):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def examples(command) -> list[str]:
    _, _, text = (command.help or "").partition("For example:\n")
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_every_command_of_the_design_is_there():
    first_words = {name.split()[1] for name in COMMANDS}
    assert first_words >= {"up", "down", "status", "logs", "demo", "import"}
    assert first_words >= {"simulate", "daily", "feed", "evaluate", "bench"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_says_what_it_does_and_shows_calls_of_it(name):
    command = COMMANDS[name]
    assert re.match(r"[A-Z][^\n]+\.\n", command.help or ""), "its first line is a sentence"
    found = examples(command)
    assert found
    for line in found:
        words = re.sub(r"^(FEEDRANK_\w+=\S+ )+", "", line)
        assert f"{words} ".startswith(f"{name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_its_examples_exist(name):
    command = COMMANDS[name]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for line in examples(command) for word in line.split() if word.startswith("-")}
    assert used <= known
