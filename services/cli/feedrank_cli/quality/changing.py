"""Other configurations than a protocol's own, for ablations: NAME=VALUE each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

from feedrank_trainer.configuration import TrainingConfig

SPELT = {"true": True, "false": False}
KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


class ChangeError(ValueError):
    """A change cannot be made; the message names it and what is known."""


def changed(config: TrainingConfig, changes: Iterable[str]) -> TrainingConfig:
    """The configuration with these changes, each a value of its field's own kind.

    Raises: ChangeError.
    """
    values = asdict(config)
    for change in changes:
        name, is_given, text = change.partition("=")
        if name not in values or not is_given:
            known = ", ".join(values)
            raise ChangeError(f"--set {change}: give NAME=VALUE with a NAME of {known}")
        kind = type(values[name])
        try:
            values[name] = SPELT[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise ChangeError(f"--set {change}: {name} is {KINDS[kind]}") from error
    try:
        return replace(config, **values)
    except ValueError as error:
        raise ChangeError(f"--set: {error}") from error
