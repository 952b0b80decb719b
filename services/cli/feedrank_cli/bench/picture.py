"""Pictures of what was measured; the same figures give the same file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from feedrank_cli.bench.report import BenchCannotRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_drawing(path: Path) -> None:
    """Ask before hours of training. Raises: BenchCannotRun."""
    if path.suffix != ".svg" or not path.parent.is_dir():
        raise BenchCannotRun(f"--picture {path}: must end in .svg, in a folder that is there")
    if find_spec("matplotlib") is None:
        raise BenchCannotRun("--picture needs matplotlib: install feedrank-cli[pictures]")


def save(path: Path, figure: Figure) -> None:
    """Write it as an SVG."""
    # Here, since every command would wait for it, and few people have it.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "feedrank", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
