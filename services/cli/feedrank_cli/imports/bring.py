"""One import from the first file to the last: read, sort, keep, write down what was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feedrank_core.runtime.progress import Tick

from feedrank_cli.imports.checkpoint import Checkpoint, identity
from feedrank_cli.imports.mapping import Mapping
from feedrank_cli.imports.pieces import Piece, Source
from feedrank_cli.imports.rejects import Rejects
from feedrank_cli.imports.routes import Route


@dataclass
class Outcome:
    """Rows by topic: new ones, and known ones, which an earlier import kept or nobody may keep.

    The lake leaves out the rows of readers who were erased, and does not say which they are.
    """

    rejects: Rejects
    new: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Job:
    """A file, what stands for its content and the way it is read, and how far it came."""

    source: Source
    identity: str
    checkpoint: Checkpoint
    path: Path


def plan(
    sources: Sequence[Source], route: Route, mapping: Mapping | None, folder: Path, way: str
) -> list[Job]:
    """A job for every file; `folder` holds the checkpoints of earlier runs. Raises: OSError."""
    how = (way, "" if mapping is None else mapping.model_dump_json())
    jobs = []
    for source in sources:
        name = identity(source.path, *how, source.topic or "")
        path = folder / f"{name}.json"
        checkpoint = Checkpoint.read(path)
        if not route.holds(checkpoint, name):
            checkpoint = Checkpoint()
        jobs.append(Job(source, name, checkpoint, path))
    return jobs


def bring(
    jobs: Sequence[Job], route: Route, mapping: Mapping | None, rejects_path: Path, tick: Tick
) -> Outcome:
    """Bring in what no earlier run did. Raises: CommandError, OSError.

    A piece is kept, then its refusals, then the checkpoint is written: a run that was killed goes
    on with the piece it was at, whose rows the route keeps once.
    """
    starts = {job.source.path: job.checkpoint.end for job in jobs}
    outcome = Outcome(Rejects(rejects_path, starts))
    for job in jobs:
        outcome.known.update(job.checkpoint.kept)
        if job.checkpoint.through:
            continue
        checkpoint = job.checkpoint
        columns = None if mapping is None else mapping.columns
        for piece in job.source.read(checkpoint.end, columns=columns):
            kept = _keep(piece, job, route, mapping, outcome)
            checkpoint = checkpoint.after(piece.end, kept)
            checkpoint.write(job.path)
            tick(piece.advance, _note(outcome))
        checkpoint.model_copy(update={"through": True}).write(job.path)
    return outcome


def _keep(
    piece: Piece, job: Job, route: Route, mapping: Mapping | None, outcome: Outcome
) -> Counter[str]:
    found = route.sort(piece, job.source.topic, mapping, job.identity)
    refusals = found.refusals
    kept: Counter[str] = Counter()
    for batch in found.batches:
        new, refused = route.keep(batch, job.identity, end=piece.end)
        refusals += refused
        kept[batch.topic] += len(batch.number_N) - len(refused)
        outcome.new[batch.topic] += new
        outcome.known[batch.topic] += len(batch.number_N) - len(refused) - new
    outcome.rejects.add(job.source.path, refusals)
    return kept


def _note(outcome: Outcome) -> str:
    rows = ", ".join(f"{topic} {rows:,}" for topic, rows in outcome.new.items())
    refused = f", {outcome.rejects.count:,} refused" if outcome.rejects.count else ""
    return f"new: {rows or 'nothing yet'}{refused}"
