"""What the ranker is measured beside: popularity, logistic regression, LightGBM.

All learn from the ranker's own rows and see what its dense inputs hold, as of the same instants;
none sees a position.
"""

from __future__ import annotations

import numpy as np
from feedrank_core.contracts.slates import Head
from feedrank_trainer.ranking.examples import RankingExamples
from feedrank_trainer.ranking.impressions import SOURCES

from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.ranker.task import RankingTask

NUM_TREES, NUM_LEAVES, TREE_RATE = 300, 63, 0.05
NUM_CATEGORICAL = 4
"""Of `features`, the last ones."""
REGULARISATION = 1.0
MAX_ITERATIONS = 500


def popularity(task: RankingTask) -> np.ndarray:
    """Clicks of the last week, and a little for all there ever were. Shapes: (R,)."""
    return task.test.popularity_R


def logistic_regression(task: RankingTask, *, seed: int) -> np.ndarray:
    """A logit that is a sum of the dense features. Shapes: (R,)."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise BenchCannotRun(f"scikit-learn is not installed: {error}") from error
    table, label = _learned_from(task)
    scaler = StandardScaler(copy=False).fit(table)
    model = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS, random_state=seed)
    model.fit(scaler.transform(table), label)
    return model.decision_function(scaler.transform(features(task.test)))


def lightgbm(task: RankingTask, *, seed: int) -> np.ndarray:
    """Trees on the dense features and on the categories of reader and item. Shapes: (R,)."""
    try:
        import lightgbm as library
    except ImportError as error:
        raise BenchCannotRun(f"lightgbm is not installed: {error}") from error
    table, label = _learned_from(task)
    names = [f"f{n}" for n in range(table.shape[1])]
    categorical = names[-NUM_CATEGORICAL:]
    parameters = {
        "objective": "binary",
        "num_leaves": NUM_LEAVES,
        "learning_rate": TREE_RATE,
        "min_data_in_leaf": 200,
        "feature_fraction": 0.7,
        "num_threads": 1,
        "deterministic": True,
        "seed": seed,
        "verbosity": -1,
    }
    data = library.Dataset(table, label, feature_name=names, categorical_feature=categorical)
    booster = library.train(parameters, data, num_boost_round=NUM_TREES)
    return np.asarray(booster.predict(features(task.test), raw_score=True))


def features(examples: RankingExamples) -> np.ndarray:
    """Dense features, one for each source, then country, age band, platform and surface.

    Shapes: (R, F) float32.
    """
    shown = examples.impressions
    slate = shown.slate
    return np.concatenate(
        [
            examples.item_dense_RF,
            examples.pair_dense_RF,
            examples.user_dense_SF[slate],
            shown.source[:, None] == np.arange(len(SOURCES)),
            examples.profile_S3[slate],
            shown.surface[:, None],
        ],
        axis=1,
        dtype=np.float32,
    )


def _learned_from(task: RankingTask) -> tuple[np.ndarray, np.ndarray]:
    """Features and clicks."""
    # LightGBM warns of a column that lies scattered in memory.
    label_R = np.ascontiguousarray(task.train.impressions.label(Head.CLICK))
    return features(task.train), label_R
