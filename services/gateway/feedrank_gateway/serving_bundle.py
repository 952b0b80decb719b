"""What the gateway uses of a bundle: mapped item columns, the popular lists, words."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from feedrank_core.contracts.bundle import Part, Stage
from feedrank_core.contracts.slates import Source
from feedrank_core.ranking.candidates import SOURCES, Candidates, ItemTable
from feedrank_core.ranking.item_hydrator import ItemHydrator
from feedrank_core.ranking.popular_source import PopularSource
from feedrank_core.runtime.bundle_store import Bundle, BundleError

_WORDS = {
    Source.CACHED: "from your recommendations",
    Source.LIVE: "because of what you just read",
    Source.FRESH: "new",
    Source.TRENDING: "trending now",
    Source.FOLLOWED: "from somebody you follow",
    Source.EXPLORATION: "something different",
    Source.SEGMENT_POPULAR: "popular near you",
    Source.GLOBAL_POPULAR: "popular now",
}


@dataclass(frozen=True)
class ServingBundle:
    """A verified bundle, opened for serving. Arrays stay mapped while anybody holds it."""

    bundle_id: str
    items: ItemTable
    item_id_I: np.ndarray
    creators: dict[str, int]
    reasons: tuple[tuple[tuple[str, ...], ...], ...]
    """By source, then by category: why an item stands in a feed."""
    popular_indices: tuple[int, ...]
    segment_indices: dict[bytes, tuple[int, ...]]
    _segments: dict[bytes, Candidates] = field(default_factory=dict, repr=False)

    @cached_property
    def hydrate(self) -> ItemHydrator:
        """The item table as a hydrator."""
        return ItemHydrator(self.items)

    @cached_property
    def popular(self) -> Candidates:
        """The list for everyone, hydrated once."""
        return self.hydrate(PopularSource(self.popular_indices)())

    def popular_in(self, segment: bytes | None) -> Candidates | None:
        """The list of a segment, hydrated when first asked for; None where it has none."""
        if segment is None or (indices := self.segment_indices.get(segment)) is None:
            return None
        found = self._segments.get(segment)
        if found is None:
            found = self.hydrate(PopularSource(indices, Source.SEGMENT_POPULAR)())
            self._segments[segment] = found
        return found

    @classmethod
    def of(cls, bundle: Bundle) -> ServingBundle:
        """Raises: BundleError where the parts do not fit together."""
        if bundle.manifest.stage is not Stage.INDEXED:
            raise BundleError(
                f"bundle {bundle.bundle_id} is {bundle.manifest.stage}, not {Stage.INDEXED};"
                " run the batch ranker on it first"
            )
        try:
            return cls._read(bundle)
        except (OSError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise BundleError(f"bundle {bundle.bundle_id} cannot be served: {error}") from error

    @classmethod
    def _read(cls, bundle: Bundle) -> ServingBundle:
        def column(part: Part) -> np.ndarray:
            array = np.asarray(bundle.array(part))
            if len(array) != bundle.manifest.num_items:
                raise ValueError(
                    f"{part.value} has {len(array)} rows, not {bundle.manifest.num_items}"
                )
            return array

        categories = [str(c) for c in _list(bundle.json(Part.CATEGORIES))]
        serving = cls(
            bundle_id=bundle.bundle_id,
            items=ItemTable(
                key_I=column(Part.ITEM_KEYS),
                creator_I=column(Part.ITEM_CREATORS),
                category_I=column(Part.ITEM_CATEGORIES),
                created_at_I=column(Part.ITEM_CREATED),
                active_I=column(Part.ITEM_ACTIVE),
            ),
            item_id_I=column(Part.ITEM_IDS),
            creators={str(c): i for i, c in enumerate(_list(bundle.json(Part.CREATORS)))},
            reasons=tuple(
                tuple((_WORDS[source], f"in {category}") for category in categories)
                for source in SOURCES
            ),
            popular_indices=bundle.popular.everyone,
            segment_indices={
                name.encode(): indices for name, indices in bundle.popular.segments.items()
            },
        )
        _ = serving.popular  # gathers the list now, not in the first request
        return serving

    def item_ids(self, index_N: np.ndarray) -> list[str]:
        """External ids. Shapes: index_N (N,) integer."""
        return [raw.decode() for raw in self.item_id_I.take(index_N).tolist()]

    def rows_of(self, key_N: np.ndarray) -> np.ndarray:
        """Dense indices of the keys that this bundle knows, in their order."""
        at_N = np.minimum(np.searchsorted(self.items.key_I, key_N), len(self.items) - 1)
        return at_N[self.items.key_I[at_N] == key_N]


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a JSON list, found {type(value).__name__}")
    return value
