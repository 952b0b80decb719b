"""What a measurement says: figures, the floor of the same run, and the bounds it must meet."""

from __future__ import annotations

import json
import operator
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

MET, MISSED, CANNOT_RUN = 0, 1, 2
"""Exit codes of `feedrank bench`."""

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


class BenchCannotRun(RuntimeError):  # noqa: N818 - the name is what a bench reads as
    """A tool, a service or data that the measurement needs is not there."""


def require_room(folder: Path, num_bytes: float) -> None:
    """Have the folder, on a disk with so much left. Raises: BenchCannotRun."""
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < num_bytes:
        raise BenchCannotRun(f"{folder} has no room for {num_bytes / 1e9:.1f} GB")


def _machine() -> str:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    with_name = Path("/proc/cpuinfo")
    if with_name.exists():
        for line in with_name.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {cpus} cores, {platform.system()}"


@dataclass
class Report:
    """One measurement. A bound on a figure that was not measured is not met."""

    name: str
    seed: int
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: str = field(default_factory=_machine)
    figures: dict[str, float] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    bounds: list[tuple[str, str, float]] = field(default_factory=list)
    published: list[tuple[str, str, float, str]] = field(default_factory=list)

    def figure(self, name: str, value: float) -> None:
        """Something measured; the unit is the end of its name."""
        self.figures[name] = float(value)

    def floor(self, name: str, value: float) -> None:
        """The same of the simplest thing that could be, on this machine in this run."""
        self.floors[name] = float(value)

    def bound(self, figure: str, op: str, bound: float) -> None:
        """What the figure must meet; `op` is one of OPERATORS."""
        if op not in OPERATORS:
            raise ValueError(f"op must be one of {', '.join(OPERATORS)}, not {op!r}")
        self.bounds.append((figure, op, float(bound)))

    def publish(self, figure: str, by: str, value: float, source: str) -> None:
        """The same figure as others reached and published it, and where that stands."""
        self.published.append((figure, by, float(value), source))

    def judged(self) -> list[dict[str, Any]]:
        """Every bound and whether it is met."""
        return [
            {"figure": name, "op": op, "bound": bound, "met": self._met(name, op, bound)}
            for name, op, bound in self.bounds
        ]

    def _met(self, name: str, op: str, bound: float) -> bool:
        return name in self.figures and OPERATORS[op](self.figures[name], bound)

    @property
    def exit_code(self) -> int:
        """0 when every bound is met, 1 when one is not."""
        return MET if all(row["met"] for row in self.judged()) else MISSED

    def as_dict(self) -> dict[str, Any]:
        """The shape of `--json`; `published` is there where there is any."""
        published = [
            {"figure": figure, "by": by, "value": value, "source": source}
            for figure, by, value, source in self.published
        ]
        return {
            "name": self.name,
            "date": self.date,
            "seed": self.seed,
            "machine": self.machine,
            "figures": self.figures,
            "floor": self.floors,
            "bounds": self.judged(),
            **({"published": published} if published else {}),
        }

    def write(self, path: Path) -> None:
        """Write `--json FILE`."""
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n")

    def table(self) -> Table:
        """Figures with their bounds, then the floor, then what others published."""
        title = f"{self.name}  (seed {self.seed}, {self.date}, {self.machine})"
        view = Table(title=title, title_justify="left")
        view.add_column("figure")
        view.add_column("value", justify="right")
        view.add_column("bound")
        for name, value in self.figures.items():
            view.add_row(name, f"{value:,.4g}", self._bounds_of(name))
        for name, _, _ in self.bounds:
            if name not in self.figures:
                view.add_row(name, "not measured", self._bounds_of(name))
        for name, value in self.floors.items():
            view.add_row(f"floor: {name}", f"{value:,.4g}", "")
        for figure, by, value, source in self.published:
            view.add_row(f"published: {figure} of {by}", f"{value:,.4g}", source)
        return view

    def _bounds_of(self, figure: str) -> str:
        return ", ".join(
            f"{op} {bound:g} {'[green]met[/]' if self._met(name, op, bound) else '[red]MISSED[/]'}"
            for name, op, bound in self.bounds
            if name == figure
        )
