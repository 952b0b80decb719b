"""How good an item is, and how often a reader acts: rates that small numbers cannot bend.

    v0      = sum of values / sum of impressions, over the catalogue
    v_i     = (value_i + M * v0) / (max(impressions_i, events_i) + M)
    r_i     = reports_i / (max(impressions_i, events_i) + M)
    quality = clip(v_i / (v_i + v0) - REPORT_COST * r_i, 0, 1)

So an item of the catalogue's mean, and one that nobody saw, has 0.5. `value_i` is the sum of
VALUES times the item's counts. Impressions are bounded below by the positive events because
some sources report actions without what was shown.

Source: the posterior mean of a rate under a prior worth M observations (additive smoothing to
the population's mean; Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.4).

Every function takes floats, numpy arrays or Ibis expressions: plain arithmetic, one definition
for stream and batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedrank_core.contracts.features import Counter

PRIOR_IMPRESSIONS = 50.0
"""M: how many impressions the catalogue's mean is worth. Our own choice: at a usual engagement
rate of some per cent it is about where one event stops deciding an item's place."""

REPORT_COST = 10.0
"""One report in ten impressions takes all of an item's quality. Our own choice."""

POPULARITY_FLOOR = 0.01
"""What an engagement is worth to popularity once its week is long over, so that a catalogue
without recent events keeps an order. Our own choice."""

VALUES: dict[Counter, float] = {
    Counter.CLICKS: 1.0,
    Counter.LIKES: 2.0,
    Counter.COMMENTS: 4.0,
    Counter.SHARES: 4.0,
    Counter.FOLLOWS: 4.0,
    Counter.HIDES: -4.0,
}
"""What one event is worth, in clicks. Our own choice, to be replaced by the weights of the
ranking value; reports are dealt with apart."""


SMALLEST_MEAN = 1e-6
"""Stands for the mean value of a catalogue in which nothing good happened yet."""


def smoothed_rate(count: Any, impressions: Any, prior_rate: Any) -> Any:
    """Events per impression, drawn to `prior_rate` as by PRIOR_IMPRESSIONS more impressions."""
    return (count + PRIOR_IMPRESSIONS * prior_rate) / (impressions + PRIOR_IMPRESSIONS)


def exposures(impressions: Any, events: Any) -> Any:
    """How often something was shown: no less often than it was acted on."""
    return events + _positive(impressions - events)


def value_of(counts: Mapping[Counter, Any]) -> Any:
    """The worth of an item's events, in clicks; negative where it is mostly hidden."""
    return sum(counts[counter] * worth for counter, worth in VALUES.items())


def valued_exposures(counts: Mapping[Counter, Any]) -> Any:
    """The exposures that the value of an item is held against."""
    good = sum(counts[counter] for counter, worth in VALUES.items() if worth > 0)
    return exposures(counts[Counter.IMPRESSIONS], good)


def mean_rate(count: float, num_exposures: float) -> float:
    """A rate of RATES over the whole catalogue, from its sums."""
    return count / max(num_exposures, 1.0)


def mean_value(value: float, num_exposures: float) -> float:
    """v0 over the whole catalogue, from its sums; always positive."""
    return max(value / max(num_exposures, 1.0), SMALLEST_MEAN)


def rate(count: Any, impressions: Any, prior_rate: float) -> Any:
    """How often a reader does something to what is shown, smoothed."""
    return smoothed_rate(count, exposures(impressions, count), prior_rate)


def quality(counts: Mapping[Counter, Any], mean_value: float) -> Any:
    """An item's quality from its counts for ever; `mean_value` is v0 above and positive."""
    shown = valued_exposures(counts)
    # The positive part: a mostly hidden item has no quality rather than a negative one.
    value = _positive(smoothed_rate(value_of(counts), shown, mean_value))
    report_rate = counts[Counter.REPORTS] / (shown + PRIOR_IMPRESSIONS)
    return _positive(value / (value + mean_value) - REPORT_COST * report_rate)


def popularity(engagements_week: Any, engagements_forever: Any) -> Any:
    """Engagements with a half-life of a week, and a little for all there ever were."""
    return engagements_week + POPULARITY_FLOOR * engagements_forever


def _positive(x: Any) -> Any:
    return (x + (x * x) ** 0.5) / 2
