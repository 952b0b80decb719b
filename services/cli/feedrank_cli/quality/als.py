"""Implicit ALS, tuned as the towers are: the peer that a small log of ratings is measured against.

Source: Hu et al. 2008, by the library `implicit`; Rendle et al. 2022 (Revisiting the Performance of
iALS) for how much its tuning matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from feedrank_trainer.comparison import Contender, measure
from feedrank_trainer.holdout import Holdout
from scipy import sparse

from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.quality.task import Task

FACTORS = (16, 32, 64, 128)
REGULARIZATION = (1.0, 10.0, 30.0, 100.0)
ALPHA = (1.0, 5.0, 20.0)
"""How much more a positive says than nothing does."""
ITERATIONS = 10


@dataclass(frozen=True)
class Settings:
    """What is tuned; names as the library has them."""

    factors: int
    regularization: float
    alpha: float


def require_als() -> None:
    """Raises: BenchCannotRun where the library is not there."""
    try:
        import implicit  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError as error:
        raise BenchCannotRun(f"implicit is not installed: {error}") from error


def tuned_als(task: Task, *, seed: int) -> Contender:
    """The best on the validation, fitted anew to all that the towers learn from."""
    tuning = task.tuning.holdout

    def validated(settings: Settings) -> float:
        contender = als(tuning, settings, seed=seed)
        found = measure(tuning, contender, with_auc=False, metrics=(task.watched,))
        return float(found.values[task.watched].mean())

    grid = [Settings(*values) for values in product(FACTORS, REGULARIZATION, ALPHA)]
    return als(task.final.holdout, max(grid, key=validated), seed=seed)


def als(holdout: Holdout, settings: Settings, *, seed: int) -> Contender:
    """Fitted to everyone's positives before the cut, with readers as they are in the holdout."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # The library asks for it: its own threads and those of BLAS would wait for each other.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=settings.factors,
            iterations=ITERATIONS,
            regularization=settings.regularization,
            alpha=settings.alpha,
            random_state=seed,
            num_threads=1,
        )
        model.fit(_weights(holdout.neighbours), show_progress=False)
        users = np.arange(len(holdout.readers["user"]))
        user_BF = np.asarray(model.recalculate_user(users, _weights(holdout.own)))
        item_NF = np.asarray(model.item_factors)
    return lambda rows: user_BF[rows] @ item_NF.T


def _weights(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.csr_matrix(matrix, dtype=np.float32)
