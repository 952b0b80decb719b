"""Examples of the ranker: impressions, and what was known just before their slate was served.

R impressions, S slates, L actions of a history; feature widths as in `features.ranking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from feedrank_core.contracts.features import HALF_LIVES_S, Counter, column
from feedrank_core.contracts.slates import Head
from feedrank_core.features.quality import popularity
from feedrank_core.features.ranking import (
    COUNTED,
    PAIR_COUNTED,
    SPANS,
    Counters,
    age_dense,
    counter_dense,
)

from feedrank_trainer.examples import Log, histories_before
from feedrank_trainer.ranking.counting import sums_before
from feedrank_trainer.ranking.impressions import Impressions

_HEAD_OF = {
    Counter.CLICKS: Head.CLICK,
    Counter.LIKES: Head.LIKE,
    Counter.SHARES: Head.SHARE,
    Counter.COMMENTS: Head.COMMENT,
    Counter.FOLLOWS: Head.FOLLOW,
    Counter.HIDES: Head.HIDE,
    Counter.REPORTS: Head.REPORT,
}
_HALF_LIVES_S = {span.value: HALF_LIVES_S[span] for span in SPANS}


class ExampleError(ValueError):
    """Examples cannot be made; the message names the feature and the impression."""


@dataclass(frozen=True)
class RankingExamples:
    """Impressions, and what of their items and readers was known when the slate was served.

    Shapes: item_dense_RF and pair_dense_RF (R, ...) float32; start_S (S + 1,) int64, where each
    slate's impressions begin; user_dense_SF (S, ...) float32; history_SL, actions_SL and ages_SL
    (S, L), dense items with -1 for nothing, ids of actions, seconds; profile_S3, interests_SI;
    popularity_R (R,), what the item's clicks make of it for everyone.
    """

    impressions: Impressions
    item_dense_RF: np.ndarray
    pair_dense_RF: np.ndarray
    start_S: np.ndarray
    user_dense_SF: np.ndarray
    history_SL: np.ndarray
    actions_SL: np.ndarray
    ages_SL: np.ndarray
    profile_S3: np.ndarray
    interests_SI: np.ndarray
    popularity_R: np.ndarray

    @property
    def num_slates(self) -> int:
        """How many slates there are."""
        return len(self.start_S) - 1

    def slates(self, chosen: np.ndarray) -> RankingExamples:
        """The examples of some slates, in ascending order. Shapes: (S,) bool."""
        of_row = chosen[self.impressions.slate]
        sizes = np.diff(self.start_S)[chosen]
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, values in parts.items():
            if name.endswith(("_SF", "_SL", "_S3", "_SI")):
                parts[name] = values[chosen]
            elif name.endswith(("_RF", "_R")):
                parts[name] = values[of_row]
        parts["impressions"] = self.impressions.rows(of_row)
        parts["start_S"] = np.r_[0, np.cumsum(sizes)]
        return RankingExamples(**parts)

    def between(self, start_s: float, stop_s: float) -> RankingExamples:
        """The slates served in a span of time."""
        served_s = self.impressions.served_s[self.start_S[:-1]]
        return self.slates((served_s >= start_s) & (served_s < stop_s))


def examples_of(
    impressions: Impressions,
    log: Log,
    groups: Mapping[str, np.ndarray],
    created_s_N: np.ndarray,
    profiles: Mapping[str, np.ndarray],
) -> RankingExamples:
    """The examples of impressions in the order that `Impressions` has.

    `log` is what readers engaged with; `groups` gives each item's number by category, tag, creator
    and type, -1 for none; `profiles` the `profile` and `interests` of every reader.
    Shapes: groups (N,) int64 each, created_s_N (N,).
    """
    start_S = np.flatnonzero(np.r_[True, np.diff(impressions.slate) > 0])
    user_S, served_S = impressions.user[start_S], impressions.served_s[start_S]
    values = _values(impressions)
    of_item = _before(impressions, values, impressions.item, COUNTED)
    user = _before(impressions, values, impressions.user, COUNTED)
    user_S_counters = {name: sums[start_S] for name, sums in user.items()}
    pairs = [
        counter_dense(_before(impressions, values, key, PAIR_COUNTED), PAIR_COUNTED)
        for key in (_pair_key(impressions, group_N) for group_N in groups.values())
    ]
    age_s = impressions.served_s - created_s_N[impressions.item]
    history, actions, ages = histories_before(log, user_S, served_S)
    examples = RankingExamples(
        impressions=impressions,
        item_dense_RF=np.concatenate([counter_dense(of_item), age_dense(age_s)], axis=1),
        pair_dense_RF=np.concatenate(pairs, axis=1),
        start_S=np.r_[start_S, len(impressions)],
        user_dense_SF=counter_dense(user_S_counters),
        history_SL=history.astype(np.int32),
        actions_SL=actions.astype(np.int8),
        ages_SL=ages,
        profile_S3=profiles["profile"][user_S],
        interests_SI=profiles["interests"][user_S],
        popularity_R=popularity(*(of_item[column(Counter.CLICKS, span)] for span in SPANS)),
    )
    for name in ("item_dense_RF", "pair_dense_RF", "user_dense_SF", "ages_SL"):
        _require_finite(name, getattr(examples, name))
    return examples


def _require_finite(name: str, values: np.ndarray) -> None:
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(rows):
        raise ExampleError(f"{name}: row {rows[0]} holds what is no number")


def _values(impressions: Impressions) -> dict[Counter, np.ndarray]:
    """What each impression adds to the counters; a head that is not known adds nothing."""
    dwell_s = np.nan_to_num(np.expm1(impressions.label(Head.DWELL)))
    known = {c: np.nan_to_num(impressions.label(head)) for c, head in _HEAD_OF.items()}
    return {
        Counter.IMPRESSIONS: np.ones(len(impressions)),
        Counter.VIEWS: (dwell_s > 0).astype(float),
        Counter.DWELL_S: dwell_s,
        **known,
    }


def _pair_key(impressions: Impressions, group_N: np.ndarray) -> np.ndarray:
    """One number for reader and group."""
    width = int(group_N.max(initial=0)) + 2
    return impressions.user * width + group_N[impressions.item] + 1


def _before(
    impressions: Impressions,
    values: Mapping[Counter, np.ndarray],
    key: np.ndarray,
    counted: tuple[Counter, ...],
) -> Counters:
    """The counters of each impression's key when its slate was served."""
    return sums_before(
        key,
        impressions.settled_s,
        {counter.value: values[counter] for counter in counted},
        _HALF_LIVES_S,
        key_Q=key,
        at_Q=impressions.served_s,
    )
