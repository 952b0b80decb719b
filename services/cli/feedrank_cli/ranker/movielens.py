"""MovieLens-100k as a ranking task: a rating is an impression, one of POSITIVE_RATING a click.

The last tenth of all ratings is measured, the tenth before it calibrates. Nothing tells where a
film stood, so no position is learned, and no head but the click is known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from feedrank_core.contracts.slates import HEADS, Head
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.features.ranking import DENSE_COLUMNS
from feedrank_trainer.examples import Log
from feedrank_trainer.ranking.examples import examples_of
from feedrank_trainer.ranking.impressions import NOWHERE, UNTOLD, Impressions

from feedrank_cli.quality.movielens import FIRST_WORD, POSITIVE_RATING, Ratings, read
from feedrank_cli.ranker.groups import groups_of
from feedrank_cli.ranker.task import RankingTask

TUNING_FROM, TEST_FROM = 0.8, 0.9


def prepare(path: Path) -> RankingTask:
    """The task of a folder with ml-100k's atomic files. Raises: DataError."""
    ratings = read(path)
    shown = impressions_of(ratings)
    columns = ratings.columns
    users = int(shown.user.max()) + 1
    profiles = {
        "profile": np.zeros((users, 3), np.int64),
        "interests": np.zeros((users, 8), np.int64),
    }
    log = Log(
        shown.user,
        shown.item,
        FIRST_WORD - 1 + ratings.rating.astype(np.int64),
        shown.served_s,
        np.ones(len(shown), bool),
    )
    # When a film was published is not told; all are as old as the log.
    created_s_N = np.full(len(columns["item_id"]), shown.served_s.min())
    examples = examples_of(shown, log, groups_of(columns), created_s_N, profiles, {})
    cuts = np.quantile(shown.served_s, (TUNING_FROM, TEST_FROM), method="lower") + 1
    train = examples.between(-np.inf, cuts[0])
    schema = FeatureSchema.fit(columns, {}, user_dense=DENSE_COLUMNS)
    return RankingTask(
        schema=schema,
        items=encode_items(
            schema, columns, trained=np.isin(np.arange(len(created_s_N)), train.impressions.item)
        ),
        train=train,
        tuning=examples.between(*cuts),
        test=examples.between(cuts[1], np.inf),
        heads=(Head.CLICK,),
    )


def impressions_of(ratings: Ratings) -> Impressions:
    """Ratings as impressions; what a reader rated within one second is one slate."""
    _, user = np.unique(ratings.user, return_inverse=True)
    num = len(user)
    is_new = np.r_[False, (np.diff(user) > 0) | (np.diff(ratings.at_s) > 0)]
    label_RH = np.full((num, len(HEADS)), np.nan, np.float32)
    label_RH[:, HEADS.index(Head.CLICK)] = ratings.rating >= POSITIVE_RATING
    return Impressions(
        user=user.astype(np.int64),
        item=ratings.item.astype(np.int64),
        slate=np.cumsum(is_new),
        position=np.full(num, NOWHERE),
        surface=np.zeros(num, np.int64),
        source=np.full(num, UNTOLD),
        served_s=ratings.at_s,
        shown_after_s=np.zeros(num, np.float32),
        done_after_s_RH=np.where(label_RH > 0, 0.0, np.nan).astype(np.float32),
        label_RH=label_RH,
    )
