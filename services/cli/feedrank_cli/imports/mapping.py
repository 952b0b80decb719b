"""A mapping file: which column of a source becomes which field of which contract.

YAML, TOML or JSON. Everything that can be wrong with it is told before the first row is read.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import yaml
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import contract_schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.checking import HAPPENED
from feedrank_cli.imports.values import ISO, UNIX_UNITS_US, fitting, instant, seconds

MAPPED_TOPICS = ("items", "users", "impressions", "interactions")


class Rule(BaseModel):
    """How a field comes about: from a column, a constant, several columns or the row's number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_: Annotated[str | None, Field(alias="from")] = None
    value: Any = None
    join: tuple[str, ...] = ()
    number: str | None = None
    separator: str = "-"
    values: dict[str, Any] | None = None
    otherwise: Any = None
    default: Any = None
    time: str = ISO
    zone: str | None = None
    unit: Literal["ms", "s", "min", "h"] | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        origins = {"from", "value", "join", "number"} & {
            "from" if name == "from_" else name for name in self.model_fields_set
        }
        if len(origins) != 1:
            raise ValueError("needs exactly one of `from`, `value`, `join` and `number`")
        if self.time != ISO and self.time not in UNIX_UNITS_US and "%" not in self.time:
            known = ", ".join([ISO, *UNIX_UNITS_US])
            raise ValueError(f"`time` is one of {known} or a format such as %d.%m.%Y %H:%M")
        try:
            _ = self.zone_info
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(
                f"`zone` {self.zone!r} is unknown; write UTC or Europe/Berlin"
            ) from None
        return self

    @cached_property
    def zone_info(self) -> ZoneInfo | None:
        """The zone of times that name none."""
        return None if self.zone is None else ZoneInfo(self.zone)

    @cached_property
    def known(self) -> dict[str, Any]:
        """`values` by the text of each."""
        return {str(value): meant for value, meant in (self.values or {}).items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return self.join if self.from_ is None else (self.from_,)


class Section(BaseModel):
    """The rows of one topic: which rows of the source they are made of, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: dict[str, list[Any]] = {}
    fields: dict[str, Rule]


class Mapping(BaseModel):
    """Sections by topic. One row of the source can become a row of several topics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sections: dict[str, Section]

    @property
    def columns(self) -> frozenset[str]:
        """Every column that it reads; of a nested one also the outermost name."""
        rules = [rule for section in self.sections.values() for rule in section.fields.values()]
        read = {c for rule in rules for c in rule.columns}
        read.update(*(section.where for section in self.sections.values()))
        return frozenset(read | {column.split(".")[0] for column in read})

    def takes(self, topic: str, values: dict[str, Any]) -> bool:
        """Whether a row of the source becomes a row of this topic."""
        return all(
            str(found(values, column)) in {str(value) for value in allowed}
            for column, allowed in self.sections[topic].where.items()
        )

    def row(
        self, topic: str, values: dict[str, Any], *, number: int, identity: str
    ) -> dict[str, Any]:
        """The fields of a contract; null ones are left out.

        `identity` stands for the file in ids that are made of a row's number. Raises: ValueError
        naming the field and its column.
        """
        kinds = _kinds(topic)
        row: dict[str, Any] = {}
        for name, rule in self.sections[topic].fields.items():
            try:
                value = _applied(rule, values, kinds[name], f"{identity}-{number}")
            except (ValueError, KeyError) as error:
                column = f" (column {rule.from_})" if rule.from_ else ""
                raise ValueError(f"{name}: {error.args[0]}{column}") from error
            if value is not None:
                row[name] = value
        return row


def load_mapping(path: Path) -> Mapping:
    """The mapping in a file. Raises: CommandError that names the field and what it may be."""
    try:
        content = _parsed(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CommandError(
            f"{path} is no readable mapping: {error}.", "See --example-mapping.", code=2
        ) from error
    if not isinstance(content, dict) or not content:
        raise CommandError(f"{path}: names no topic.", "See --example-mapping.", code=2)
    for topic, section in content.items():
        _check_names(path, topic, section)
        fields = section["fields"]
        short = {n: {"from": rule} for n, rule in fields.items() if isinstance(rule, str)}
        content[topic] = section | {"fields": fields | short}
    try:
        return Mapping(sections=content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].removeprefix("Value error, ")
        raise CommandError(
            f"{path}: {where}: {message}.", "See --example-mapping.", code=2
        ) from error


def check_columns(mapping: Mapping, there: Iterable[str], path: Path) -> None:
    """Hold the mapping against the columns of a file. Raises: CommandError that names the field."""
    there = list(there)
    for topic, section in mapping.sections.items():
        read = [(name, c) for name, rule in section.fields.items() for c in rule.columns]
        for name, column in [*read, *(("where", c) for c in section.where)]:
            if column not in there and column.split(".")[0] not in there:
                near = difflib.get_close_matches(column, there, n=1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise CommandError(
                    f"{topic}.{name} reads column {column!r}, which {path} does not have.{meant}",
                    f"It has: {', '.join(there)}.",
                    code=2,
                )


def found(values: dict[str, Any], column: str) -> Any:
    """The value of a column; a dot leads into a nested one. Raises: KeyError."""
    if column in values:
        return values[column]
    outer, dot, inner = column.partition(".")
    if dot and isinstance(values.get(outer), dict):
        return found(values[outer], inner)
    raise KeyError(f"the row has no {column!r}")


@lru_cache
def _kinds(topic: str) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in contract_schema(topic)}


def _applied(rule: Rule, values: dict[str, Any], kind: pa.DataType, row_id: str) -> Any:
    if rule.number is not None:
        return rule.number + row_id
    if rule.join:
        parts = [fitting(found(values, column), pa.string()) for column in rule.join]
        return rule.separator.join(parts)
    value = rule.value if rule.from_ is None else found(values, rule.from_)
    if value is not None and rule.values is not None:
        if str(value) not in rule.known and "otherwise" not in rule.model_fields_set:
            raise ValueError(f"{value!r} is not under `values`; add it there or give `otherwise`")
        value = rule.known.get(str(value), rule.otherwise)
    if value is None:
        value = rule.default
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return instant(value, rule.time, rule.zone_info)
    if rule.unit is not None:
        return seconds(value, rule.unit)
    if rule.split is not None:
        value = [part for part in str(value).split(rule.split) if part]
    return fitting(value, kind)


def _parsed(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def _check_names(path: Path, topic: str, section: Any) -> None:
    """Topics and fields are known, and none that a row must have is missing."""
    if topic not in MAPPED_TOPICS:
        raise CommandError(
            f"{path}: there is no topic {topic!r} to import.",
            f"Known: {', '.join(MAPPED_TOPICS)}.",
            code=2,
        )
    fields = section.get("fields") if isinstance(section, dict) else None
    if not isinstance(fields, dict):
        raise CommandError(f"{path}: {topic}: has no `fields`.", "See --example-mapping.", code=2)
    model = TOPICS[topic].model.model_fields
    for name in fields:
        if name not in model:
            raise CommandError(
                f"{path}: {topic}: there is no field {name!r}.",
                f"Known: {', '.join(model)}.",
                code=2,
            )
    missing = [n for n, info in model.items() if info.is_required() and n not in fields]
    if topic in HAPPENED:
        missing = [name for name in missing if name != "accepted_at"]
    if missing:
        raise CommandError(
            f"{path}: {topic}: nothing says what {', '.join(missing)} is.",
            "Give each a rule under `fields`; see --example-mapping.",
            code=2,
        )
