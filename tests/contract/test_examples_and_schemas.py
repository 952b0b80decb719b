import importlib
import json
import pkgutil

import feedrank_core.contracts
import jsonschema_rs
import pytest
from feedrank_core.contracts.base import Message
from feedrank_core.contracts.compatibility import breaks
from feedrank_core.contracts.schemas_dump import (
    EXAMPLES,
    SCHEMAS,
    committed,
    published,
    schema_of,
)
from pydantic import ValidationError

MODELS = sorted(published())
FILES = sorted(EXAMPLES.glob("*/*.json"))


def all_messages() -> set[type[Message]]:
    package = feedrank_core.contracts
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.endswith("schemas_dump"):
            importlib.import_module(module.name)
    found: set[type[Message]] = set()
    new = set(Message.__subclasses__())
    while new:
        found |= new
        new = {s for m in new for s in m.__subclasses__()} - found
    return {m for m in found if m.__module__.startswith(package.__name__)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_example_validates_by_model_and_by_schema_and_survives_a_round_trip(path) -> None:
    model = published()[path.parent.name]
    message = model.model_validate_json(path.read_bytes())
    jsonschema_rs.validate(schema_of(model), json.loads(path.read_text()))
    assert model.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_unknown_field_is_refused(path) -> None:
    content = json.loads(path.read_text()) | {"not_a_field": 1}
    with pytest.raises(ValidationError, match="not_a_field"):
        published()[path.parent.name].model_validate(content)


@pytest.mark.parametrize("name", MODELS)
def test_every_published_model_has_two_examples(name: str) -> None:
    assert len(list((EXAMPLES / name).glob("*.json"))) >= 2


@pytest.mark.parametrize("name", MODELS)
def test_a_committed_schema_is_current_and_no_record_breaks(name: str) -> None:
    old, new = committed(name), schema_of(published()[name])
    assert old is not None, "run `make docs`"
    assert breaks(old, new) == []
    assert old == json.loads(json.dumps(new)), "run `make docs`"


def test_no_schema_and_no_example_is_left_over() -> None:
    assert sorted(p.stem for p in SCHEMAS.iterdir()) == MODELS
    assert sorted(p.name for p in EXAMPLES.iterdir()) == MODELS
    assert [p for p in EXAMPLES.glob("*/*") if p.suffix != ".json"] == []


def test_every_message_is_published_or_part_of_what_is() -> None:
    names = {m.__name__ for m in published().values()}
    for model in published().values():
        names |= schema_of(model).get("$defs", {}).keys()
        names |= {base.__name__ for base in model.__mro__}
    assert {m.__name__ for m in all_messages()} - names == set()
