"""Where everything lies on one machine: the only file that spells a path below the home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """Folders of one installation. Nothing is created by asking for a path."""

    root: Path

    @property
    def lake(self) -> Path:
        """Delta tables, one folder a table."""
        return self.root / "lake"

    @property
    def features(self) -> Path:
        """Feature tables (Parquet) that Feast reads, and snapshots by run."""
        return self.root / "features"

    @property
    def feast(self) -> Path:
        """Feast's registry database."""
        return self.root / "feast"

    @property
    def stream(self) -> Path:
        """The state that the stream's features are folded into."""
        return self.root / "stream"

    @property
    def bundles(self) -> Path:
        """The bundle store: a folder a bundle, and CURRENT."""
        return self.root / "bundles"

    @property
    def runs(self) -> Path:
        """Work of the daily runs, a folder a run."""
        return self.root / "runs"

    @property
    def imports(self) -> Path:
        """How far each import came, and the rows that were refused."""
        return self.root / "imports"

    @property
    def run(self) -> Path:
        """Process state of `feedrank up`: supervisor's files, sockets, the server's secrets."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Logs of the services, a file a service."""
        return self.root / "logs"
