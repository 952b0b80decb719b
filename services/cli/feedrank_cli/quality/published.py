"""Figures of others on data sets that are recognised by their size, and what ours must reach.

Each was looked up where its source says, on 2026-11-28.
"""

from __future__ import annotations

from dataclasses import dataclass

from feedrank_cli.quality.task import Task

BARS = "BARS, docs/Matching/leaderboard/gowalla_m1.csv of reczoo/BARS"
"""Where a model has vectors, they have 64 dimensions: a rule of that leaderboard."""
TIGER = "Rajput et al. 2023 (TIGER), as cited by Tikhonovich et al. 2025"
ESASREC = "Tikhonovich et al. 2025 (eSASRec), README of blondered/transformer_benchmark"
"""All three computed by its authors. Vectors of both SASRec have 64 dimensions by its README, and
256 by its configurations of Beauty."""


@dataclass(frozen=True)
class Published:
    """A model's figures by metric, and where they stand."""

    model: str
    source: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Known:
    """A public data set: what others reached, and what ours must."""

    name: str
    published: tuple[Published, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()


def _all_rank(model: str, recall: float, ndcg: float) -> Published:
    return Published(model, BARS, {"recall_at_20": recall, "ndcg_at_20": ndcg})


def _next(model: str, source: str, ndcg: float, recall: float) -> Published:
    return Published(model, source, {"ndcg_at_10": ndcg, "recall_at_10": recall})


GOWALLA = Known(
    "Gowalla",
    (
        _all_rank("MF-BPR", 0.1627, 0.1378),
        _all_rank("YoutubeDNN", 0.1754, 0.1473),
        _all_rank("EASE^R", 0.1765, 0.1467),
        _all_rank("LightGCN", 0.1820, 0.1547),
        _all_rank("UltraGCN", 0.1862, 0.1580),
        _all_rank("SimpleX", 0.1872, 0.1557),
    ),
    (("recall_at_20", 0.1800), ("ndcg_at_20", 0.1500)),
)
BEAUTY = Known(
    "Amazon Beauty",
    (
        _next("SASRec", TIGER, 0.0318, 0.0605),
        _next("TIGER", TIGER, 0.0384, 0.0648),
        _next("HSTU, run again", ESASREC, 0.0439, 0.0788),
        _next("SASRec, sampled softmax", ESASREC, 0.0531, 0.0921),
        _next("eSASRec", ESASREC, 0.0523, 0.0928),
    ),
    (("ndcg_at_10", 0.0505), ("recall_at_10", 0.0880)),
)
MOVIELENS = Known(
    "ml-100k, the last tenth of each reader",
    bounds=(("ndcg_at_10", 0.111), ("recall_at_20", 0.208)),
)
"""Its bounds are this project's own: nobody has published figures of this split."""

_BY_SIZE = {
    (29_858, 40_981, 1_027_370): GOWALLA,
    (22_363, 12_101, 198_502): BEAUTY,
    (943, 1_682, 100_000): MOVIELENS,
}


def known_as(task: Task) -> Known | None:
    """The public data set of that many users, items and actions; None for other data."""
    users, items, actions = (int(task.facts[name]) for name in ("users", "items", "actions"))
    return _BY_SIZE.get((users, items, actions)) if task.is_usual_split else None
