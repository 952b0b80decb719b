"""Shows a training run: a bar on a terminal, plain lines elsewhere, and as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from feedrank_core.runtime.metrics import Metrics
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from feedrank_trainer.training import Epoch


@contextmanager
def epoch_report(num_epochs: int, console: Console | None = None) -> Iterator[Callable]:
    """What to call after each epoch. Writes to standard error: stdout is for the result."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda epoch: console.print(line(epoch), highlight=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=num_epochs)

        def advance(epoch: Epoch) -> None:
            progress.update(task, completed=epoch.number, description=line(epoch))

        yield advance


def counted(metrics: Metrics, epoch: Epoch) -> None:
    """Let `/metrics` tell of the epoch."""
    if not epoch.is_resumed:
        metrics.counter("epochs_total").inc()
    metrics.gauge("steps").set(epoch.steps)
    metrics.gauge("loss").set(epoch.loss)
    if epoch.score is not None:
        metrics.gauge("validation_ndcg").set(epoch.score)


def line(epoch: Epoch) -> str:
    """One epoch in words."""
    score = "" if epoch.score is None else f", NDCG on the later slice {epoch.score:.4f}"
    number = f"epoch {epoch.number} ({epoch.steps} steps)"
    if epoch.is_resumed:
        number = f"resumed after {number}"
    return f"{number}: loss {epoch.loss:.3f}{score}, {epoch.elapsed_s:.1f} s"
