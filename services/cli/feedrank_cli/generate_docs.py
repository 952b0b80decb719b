"""`python -m feedrank_cli.generate_docs DOCS`: pages drawn from the code (`make docs`)."""

from __future__ import annotations

import sys
from pathlib import Path

from feedrank_core.contracts.metrics import METRICS
from feedrank_core.contracts.redis_keys import REDIS_KEYS
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.settings import InstallationSettings, variable_of

from feedrank_cli.variables import owners

NOTICE = "<!-- Drawn from the code by `make docs`; edit it, not this page. -->"


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {"dataflow.md": dataflow(), "metrics.md": metrics(), "settings.md": settings()}


def dataflow() -> str:
    """Who writes and reads each topic and each Redis key."""
    lines = [NOTICE, "", "# Data flow", ""]
    lines += ["Topics in double arrows, Redis keys in single ones, dotted what is planned."]
    lines += ["", *_graph(), "", "## Topics", ""]
    lines += _table(
        ("topic", "message", "key", "partitions", "compacted", "writers", "readers"),
        [
            (
                f"`{t.name}`",
                t.model.__name__,
                t.key,
                t.partitions,
                "yes" if t.compacted else "no",
                _names(t.writers, t.planned),
                _names(t.readers, t.planned),
            )
            for t in TOPICS.values()
        ],
    )
    lines += ["", "Each has a twin, `-dlq`, for records that a reader could not use. No service"]
    lines += ["reads those: people do, with the tools of the bus.", ""]
    lines += ["## Redis keys", ""]
    lines += _table(
        ("key", "value", "at most", "lives", "writer", "readers"),
        [
            (
                f"`{k.template}`",
                k.value,
                f"{k.max_bytes} B",
                "until replaced" if k.ttl_s is None else f"{k.ttl_s / 3600:g} h",
                k.writer,
                _names(k.readers, k.planned),
            )
            for k in REDIS_KEYS.values()
        ],
    )
    return "\n".join(lines) + "\n"


def _graph() -> list[str]:
    lines = ["```mermaid", "flowchart LR"]
    for name, topic in TOPICS.items():
        node = f"t_{name.replace('-', '_')}"
        lines.append(f'    {node}[["{name}"]]')
        arrow = dict.fromkeys(topic.planned, "-.->")
        lines += [f"    {w} {arrow.get(w, '==>')} {node}" for w in sorted(topic.writers)]
        lines += [f"    {node} {arrow.get(r, '==>')} {r}" for r in sorted(topic.readers)]
    for name, key in REDIS_KEYS.items():
        lines.append(f'    k_{name}[("{key.template}")]')
        lines.append(f"    {key.writer} --> k_{name}")
        arrow = dict.fromkeys(key.planned, "-.->")
        lines += [f"    k_{name} {arrow.get(r, '-->')} {r}" for r in sorted(key.readers)]
    return [*lines, "```"]


def metrics() -> str:
    """Every metric that any service emits."""
    lines = [NOTICE, "", "# Metrics", "", "Nothing outside this table is emitted.", ""]
    lines += _table(
        ("metric", "kind", "labels", "says"),
        [
            (f"`{m.full_name}`", m.kind.value, ", ".join(m.labels) or "-", m.help)
            for m in sorted(METRICS, key=lambda m: m.full_name)
        ],
    )
    return "\n".join(lines) + "\n"


def settings() -> str:
    """Every environment variable that a process reads, with its default."""
    lines = [NOTICE, "", "# Settings", "", "Environment variables. A bad value stops the start."]
    for title, owner in owners().items():
        shared = {} if owner is InstallationSettings else InstallationSettings.model_fields
        rows: list[tuple[object, ...]] = [
            (f"`{variable_of(owner, name)}`", _default(field.default), field.description)
            for name, field in owner.model_fields.items()
            if name not in shared
        ]
        lines += ["", f"## {title}", "", *_table(("variable", "default", "says"), rows)]
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    return "-" if value is None else f"`{value}`"


def _names(names: frozenset[str], planned: frozenset[str]) -> str:
    return ", ".join(f"{n} (planned)" if n in planned else n for n in sorted(names)) or "-"


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    ruler = ["---"] * len(head)
    return [f"| {' | '.join(row)} |" for row in (list(head), ruler, *escaped)]


if __name__ == "__main__":
    for page, text in pages().items():
        (Path(sys.argv[1]) / page).write_text(text)
