"""Writes the JSON Schemas that are committed beside the contracts.

`python -m feedrank_core.contracts.schemas_dump` refuses a change that breaks old records;
`--breaking` writes it all the same.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from feedrank_core.contracts import api, bundle, events
from feedrank_core.contracts.base import Message
from feedrank_core.contracts.compatibility import breaks
from feedrank_core.contracts.features import Priors
from feedrank_core.contracts.items import ItemBody
from feedrank_core.contracts.topics import with_dead_letters
from feedrank_core.contracts.user_changes import MergeBody, Receipt
from feedrank_core.contracts.users import UserBody

SCHEMAS = Path(__file__).with_name("schemas")
EXAMPLES = Path(__file__).with_name("examples")

HTTP_BODIES: tuple[type[Message], ...] = (
    events.ClientImpression,
    events.ClientInteraction,
    ItemBody,
    UserBody,
    api.EventBatch,
    api.ItemBatch,
    api.UserBatch,
    MergeBody,
    Receipt,
    api.BatchResult,
    api.FeedResponse,
    api.Problem,
)
BUNDLE_FILES: tuple[type[Message], ...] = (bundle.Manifest, bundle.PopularLists)
FEATURE_FILES: tuple[type[Message], ...] = (Priors,)


def published() -> dict[str, type[Message]]:
    """Every model that leaves a process, by the name of its schema."""
    models = [t.model for t in with_dead_letters().values()]
    return {name_of(m): m for m in (*models, *HTTP_BODIES, *BUNDLE_FILES, *FEATURE_FILES)}


def name_of(model: type[Message]) -> str:
    """The name of a model's schema and folder of examples: `FeedResponse` is `feed_response`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()


def schema_of(model: type[Message]) -> dict[str, Any]:
    """The JSON Schema of what is read."""
    return model.model_json_schema(mode="validation")


def committed(name: str) -> dict[str, Any] | None:
    """The schema as committed, or None for a new one."""
    path = SCHEMAS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def main(arguments: list[str]) -> int:
    """Write every schema; 1 when a change would break old records."""
    SCHEMAS.mkdir(exist_ok=True)
    harm: list[str] = []
    for name, model in published().items():
        old = committed(name)
        if old is not None:
            harm += [f"{name}: {text}" for text in breaks(old, schema_of(model))]
    if harm and "--breaking" not in arguments:
        sys.stderr.write("these changes break old records:\n  " + "\n  ".join(harm) + "\n")
        return 1
    for name, model in published().items():
        text = json.dumps(schema_of(model), indent=2, ensure_ascii=False, sort_keys=True)
        (SCHEMAS / f"{name}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
