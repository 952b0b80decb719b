"""The catalogue's means on disk: the daily run writes them, batch and stream read them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from feedrank_core.contracts.features import PRIORS, Priors
from feedrank_core.features.quality import SMALLEST_MEAN

NO_PRIORS = Priors(
    as_of=datetime(1970, 1, 1, tzinfo=UTC),
    mean_value=SMALLEST_MEAN,
    click_rate=0.0,
    like_rate=0.0,
    engagement_rate=0.0,
)
"""What the stream reckons with before the first daily run: that nothing is known."""


def read_priors(folder: Path) -> Priors | None:
    """What the last catalogue's run wrote below `folder`, None before the first."""
    path = folder / PRIORS
    return Priors.model_validate_json(path.read_bytes()) if path.exists() else None


def write_priors(priors: Priors, folder: Path) -> None:
    """Replace what was written: a reader sees the old ones or the new ones."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{PRIORS}.unfinished"
    unfinished.write_text(priors.model_dump_json())
    unfinished.replace(folder / PRIORS)


class LatestPriors:
    """The priors of the last daily run, read again whenever their file changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held, self._read_at_ns = NO_PRIORS, 0

    def get(self) -> Priors:
        """The newest. Raises: OSError, ValueError where the file cannot be read."""
        path = self._folder / PRIORS
        written_at_ns = path.stat().st_mtime_ns if path.exists() else 0
        if written_at_ns != self._read_at_ns:
            self._held = read_priors(self._folder) or NO_PRIORS
            self._read_at_ns = written_at_ns
        return self._held
