from copy import deepcopy
from enum import StrEnum
from typing import Annotated, Any

import pytest
from feedrank_core.contracts.compatibility import breaks
from feedrank_core.contracts.schemas_dump import published, schema_of
from pydantic import BaseModel, Field, create_model


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    size: int


class Other(BaseModel):
    length: int


FIELDS: dict[str, Any] = {
    "name": (str, ...),
    "colour": (Colour, Colour.RED),
    "part": (Part | None, None),
    "parts": (tuple[Part, ...], ()),
    "either": (Part | Other, Part(size=1)),
    "count": (Annotated[int, Field(ge=0)], 0),
}


def schema(**changes: Any) -> dict[str, Any]:
    fields = {k: v for k, v in {**FIELDS, **changes}.items() if v is not None}
    return create_model("Thing", **fields).model_json_schema()


class Red(StrEnum):
    RED = "red"


class Green(StrEnum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


class PartWithNeed(BaseModel):
    size: int
    weight: float


class PartOfText(BaseModel):
    size: str


OtherOfText = create_model("Other", length=(str, ...))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": None}, "$.colour: the field is gone"),
        ({"added": (str, ...)}, "$.added: the field is required now"),
        ({"colour": (Colour, ...)}, "$.colour: the field is required now"),
        ({"colour": (Red, Red.RED)}, "'blue' is no longer taken"),
        ({"name": (int, ...)}, "$.name: type string is no longer taken"),
        ({"part": (Part, Part(size=1))}, "$.part: type null is no longer taken"),
        ({"parts": (tuple[PartWithNeed, ...], ())}, "$.parts[].weight: the field is required"),
        ({"part": (PartOfText | None, None)}, "$.part.size: type integer is no longer taken"),
        ({"either": (Part, Part(size=1))}, "$.either.length: the field is gone"),
        ({"either": (Part | OtherOfText, Part(size=1))}, "$.either.length: type integer is no"),
        ({"either": (PartOfText | Other, Other(length=1))}, "$.either.size: type integer is no"),
        ({"count": (Annotated[int, Field(ge=1)], 1)}, "minimum went from 0 to 1"),
        ({"count": (Annotated[float, Field(ge=1)], 1)}, "minimum went from 0 to 1"),
        ({"count": (Annotated[int, Field(ge=0, le=9)], 0)}, "maximum went from None to 9"),
        ({"name": (Annotated[str, Field(pattern="^a")], ...)}, "pattern went from None"),
    ],
)
def test_a_breaking_change_is_named(change: dict[str, Any], said: str) -> None:
    found = breaks(schema(), schema(**change))
    assert any(said in text for text in found), found


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"added": (str | None, None)},
        {"colour": (Green, Green.RED)},
        {"name": (str | None, ...)},
        {"count": (float, 0.0)},
        {"part": (Part | Other | None, None)},
    ],
)
def test_a_widening_change_is_none(change: dict[str, Any]) -> None:
    assert breaks(schema(), schema(**change)) == []


@pytest.mark.parametrize("name", sorted(published()))
def test_losing_any_field_of_a_real_contract_is_found(name: str) -> None:
    old = schema_of(published()[name])
    assert breaks(old, old) == []
    for part in (None, *old.get("$defs", {})):
        for field in _part(old, part).get("properties", {}):
            new = deepcopy(old)
            del _part(new, part)["properties"][field]
            place = f"$.{field}" if part is None else f".{field}"
            gone = [text for text in breaks(old, new) if f"{place}: the field is gone" in text]
            assert gone, f"{part or name} lost {field}"


def _part(schema: dict[str, Any], definition: str | None) -> dict[str, Any]:
    return schema if definition is None else schema["$defs"][definition]
