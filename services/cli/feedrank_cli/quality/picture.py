"""The curves of `trade_off` as a picture."""

from __future__ import annotations

from pathlib import Path

from feedrank_cli.bench.picture import save
from feedrank_cli.quality.trade_off import LENGTH, MMR, SPREAD, Curves, Point

WIDTH_IN, HEIGHT_IN = 6.0, 4.0
WORDS = {
    MMR: "MMR, by the weight of likeness",
    SPREAD: f"spread, by items of a category in {LENGTH} places",
    "diversity_by_tags": "intra-list diversity, by tags",
    "diversity_by_vectors": "intra-list diversity, by item vectors",
}
NUM_LABELS = 6
"""Settings that are written beside a curve; its other points would run into each other."""


def draw(path: Path, panels: dict[str, Curves]) -> None:
    """Write an SVG with a panel for each task, under its title."""
    # Here, since every command would wait for it, and few people have it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, points in curves.points.items():
            diversity, ndcg = [p.diversity for p in points], [p.ndcg for p in points]
            axis.plot(diversity, ndcg, marker="o", markersize=3, label=WORDS[name])
            for point in labelled(points):
                axis.annotate(
                    f"{point.setting:g}",
                    (point.diversity, point.ndcg),
                    textcoords="offset points",
                    xytext=(3, 4),
                    fontsize=7,
                )
        axis.set(title=title, xlabel=WORDS[curves.space], ylabel=f"NDCG@{LENGTH}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save(path, figure)


def labelled(points: list[Point]) -> list[Point]:
    """Every other point or so, the first and the last among them."""
    step = max(1, round((len(points) - 1) / (NUM_LABELS - 1)))
    return [*points[:-1:step], points[-1]]
