"""Examples of the ranker: impressions, and what was known just before their slate was served.

R impressions, S slates, L actions of a history; feature widths as in `features.ranking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from feedrank_core.contracts.features import HALF_LIVES_S, Counter, column
from feedrank_core.contracts.slates import Head
from feedrank_core.features.quality import popularity
from feedrank_core.features.ranking import (
    COUNTED,
    PAIR_COUNTED,
    PERSONAL,
    SPANS,
    Counters,
    age_dense,
    chosen_dense,
    counter_dense,
)

from feedrank_trainer.examples import ABSENT, Log, histories_before
from feedrank_trainer.ranking.affinities import affinities
from feedrank_trainer.ranking.counting import sums_before
from feedrank_trainer.ranking.impressions import SOURCES, Impressions

_MOVED: dict[Head, set[Counter]] = {
    Head.CLICK: {Counter.CLICKS},
    Head.LIKE: {Counter.LIKES},
    Head.SHARE: {Counter.SHARES},
    Head.COMMENT: {Counter.COMMENTS},
    Head.FOLLOW: {Counter.FOLLOWS},
    Head.HIDE: {Counter.HIDES},
    Head.REPORT: {Counter.REPORTS},
    Head.DWELL: {Counter.VIEWS, Counter.DWELL_S},
}
"""What the first action of each head moves."""
SHOWN_LENGTH = 100
"""Items shown that a slate's example holds: a few days of a reader who looks at twenty a day."""
_HALF_LIVES_S = {span.value: HALF_LIVES_S[span] for span in SPANS}


class ExampleError(ValueError):
    """Examples cannot be made; the message names the feature and the impression."""


@dataclass(frozen=True)
class RankingExamples:
    """Impressions, and what of their items and readers was known when the slate was served.

    Shapes: item_dense_RF and pair_dense_RF (R, ...) float32; start_S (S + 1,) int64, where each
    slate's impressions begin; user_dense_SF (S, ...) float32; history_SL, actions_SL and ages_SL
    (S, L), dense items with -1 for nothing, ids of actions, seconds; shown_SM and shown_ages_SM
    (S, M), what the reader was shown last, acted on or not, and shown_sources_SM int8 its place in
    SOURCES and one more, 0 for none; profile_S3, interests_SI;
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
    shown_SM: np.ndarray
    shown_ages_SM: np.ndarray
    shown_sources_SM: np.ndarray
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
            if name.endswith(("_SF", "_SL", "_SM", "_S3", "_SI")):
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


@dataclass(frozen=True)
class Events:
    """What moves counters: each event of its own, once the bus had it, as serving folds it.

    Shapes: served_s (R,) and at_s (E,) Unix seconds; row (E,) int64, the impression of an
    event; value (E,) float32 by counter, how far the event moves it.
    """

    served_s: np.ndarray
    row: np.ndarray
    at_s: np.ndarray
    value: dict[Counter, np.ndarray]

    @classmethod
    def of(cls, impressions: Impressions) -> Events:
        """The impressions themselves, then the first action of each head."""
        parts = [np.arange(len(impressions))]
        after_s = [impressions.shown_after_s]
        moved = [{Counter.IMPRESSIONS}]
        for head, counters in _MOVED.items():
            parts.append(np.flatnonzero(np.isfinite(impressions.done_after_s(head))))
            after_s.append(impressions.done_after_s(head)[parts[-1]])
            moved.append(counters)
        row = np.concatenate(parts)
        value = {
            counter: np.concatenate(
                [
                    np.full(len(part), counter in moves, np.float32)
                    for part, moves in zip(parts, moved, strict=True)
                ]
            )
            for counter in COUNTED
        }
        is_dwell = value[Counter.DWELL_S] > 0
        value[Counter.DWELL_S][is_dwell] = np.expm1(impressions.label(Head.DWELL)[row[is_dwell]])
        served_s = impressions.served_s
        return cls(served_s, row, served_s[row] + np.concatenate(after_s), value)

    def before(
        self, key_R: np.ndarray, counted: tuple[Counter, ...], *, asked: np.ndarray | None = None
    ) -> Counters:
        """The counters, by column, of the keys of the asked impressions when they were served."""
        return sums_before(
            key_R[self.row],
            self.at_s,
            {counter.value: self.value[counter] for counter in counted},
            _HALF_LIVES_S,
            key_Q=key_R if asked is None else key_R[asked],
            at_Q=self.served_s if asked is None else self.served_s[asked],
        )


def examples_of(
    impressions: Impressions,
    log: Log,
    groups: Mapping[str, np.ndarray],
    created_s_N: np.ndarray,
    profiles: Mapping[str, np.ndarray],
    contents: Mapping[str, np.ndarray],
) -> RankingExamples:
    """The examples of impressions in the order that `Impressions` has.

    `log` is what readers engaged with; `groups` gives each item's number by category, tag, creator
    and type, -1 for none; `profiles` the `profile` and `interests` of every reader; `contents` the
    vectors of items, where they have some.
    Shapes: groups (N,) int64 each, created_s_N (N,), contents (N, D) each.
    """
    start_S = np.flatnonzero(np.r_[True, np.diff(impressions.slate) > 0])
    ends_S = np.r_[start_S, len(impressions)]
    user_S, served_S = impressions.user[start_S], impressions.served_s[start_S]
    events = Events.of(impressions)
    of_item = events.before(impressions.item, COUNTED)
    of_user = events.before(impressions.user, COUNTED, asked=start_S)
    keys = [_pair_key(impressions, group_N) for group_N in groups.values()]
    pairs = [counter_dense(events.before(key_R, PAIR_COUNTED), PAIR_COUNTED) for key_R in keys]
    pairs += _chosen_before(impressions, keys)
    age_s = impressions.served_s - created_s_N[impressions.item]
    history, actions, ages = histories_before(log, user_S, served_S)
    was_shown, shown_sources, shown_ages = shown_before(impressions, user_S, served_S)
    chosen = np.where(is_personal(shown_sources - 1), was_shown, ABSENT)
    lists = [(history, ages), (was_shown, shown_ages), (chosen, shown_ages)]
    pairs.append(affinities(impressions.item, ends_S, lists, contents))
    examples = RankingExamples(
        impressions=impressions,
        item_dense_RF=np.concatenate([counter_dense(of_item), age_dense(age_s)], axis=1),
        pair_dense_RF=np.concatenate(pairs, axis=1),
        start_S=ends_S,
        user_dense_SF=counter_dense(of_user),
        history_SL=history.astype(np.int32),
        actions_SL=actions.astype(np.int8),
        ages_SL=ages,
        shown_SM=was_shown,
        shown_ages_SM=shown_ages,
        shown_sources_SM=shown_sources,
        profile_S3=profiles["profile"][user_S],
        interests_SI=profiles["interests"][user_S],
        popularity_R=popularity(*(of_item[column(Counter.CLICKS, span)] for span in SPANS)),
    )
    for name in ("item_dense_RF", "pair_dense_RF", "user_dense_SF", "ages_SL", "shown_ages_SM"):
        _require_finite(name, getattr(examples, name))
    return examples


def shown_before(
    impressions: Impressions, user_S: np.ndarray, served_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last impressions of each reader strictly before a slate was served.

    Items, sources as in `RankingExamples`, and ages.
    Shapes: three (S, SHOWN_LENGTH), -1, 0 and 0 for nothing.
    """
    at_s = impressions.served_s + impressions.shown_after_s
    order = np.lexsort((at_s, impressions.user))
    source = impressions.source + 1
    log = Log(impressions.user, impressions.item, source, at_s, np.ones(len(at_s), bool)).rows(
        order
    )
    items, sources, ages = histories_before(log, user_S, served_S, length=SHOWN_LENGTH)
    return items.astype(np.int32), sources.astype(np.int8), ages


def is_personal(source: np.ndarray) -> np.ndarray:
    """Where an index into SOURCES is one of PERSONAL. Shapes: any, bool."""
    return np.isin(source, [SOURCES.index(one) for one in PERSONAL])


def _chosen_before(impressions: Impressions, keys: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each group its share in what personal sources had chosen for the reader; keys (R,)."""
    rows = np.flatnonzero(is_personal(impressions.source))
    at_s = impressions.served_s[rows] + impressions.shown_after_s[rows]
    one = {Counter.IMPRESSIONS.value: np.ones(len(rows), np.float32)}
    counted = [
        sums_before(key_R[rows], at_s, one, _HALF_LIVES_S, key_Q=key_R, at_Q=impressions.served_s)
        for key_R in (impressions.user, *keys)
    ]
    return [chosen_dense(of_group, counted[0]) for of_group in counted[1:]]


def _require_finite(name: str, values: np.ndarray) -> None:
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(rows):
        raise ExampleError(f"{name}: row {rows[0]} holds what is no number")


def _pair_key(impressions: Impressions, group_N: np.ndarray) -> np.ndarray:
    """One number for reader and group."""
    width = int(group_N.max(initial=0)) + 2
    return impressions.user * width + group_N[impressions.item] + 1
