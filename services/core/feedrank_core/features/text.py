"""Subword n-grams of a text: related words share buckets, and no word is ever unknown."""

from __future__ import annotations

import re
from functools import lru_cache

import xxhash

MIN_GRAM = 3
MAX_GRAM = 5
GRAMS_PER_WORD = 8
"""At most: a long word does not crowd out the words after it."""

FIRST_BUCKET = 2
"""0 is padding and 1 stays free, as in every vocabulary."""

_WORD = re.compile(r"\w+")


@lru_cache(maxsize=1 << 17)
def word_grams(word: str, num_buckets: int) -> tuple[int, ...]:
    """Buckets of the word itself and of its character 3- to 5-grams, in that order.

    Source: Bojanowski et al. 2017, Enriching Word Vectors with Subword Information.
    """
    marked = f"<{word}>"
    grams = [marked] + [
        marked[start : start + length]
        for length in range(MIN_GRAM, MAX_GRAM + 1)
        for start in range(len(marked) - length + 1)
        if length < len(marked)
    ]
    return tuple(
        FIRST_BUCKET + xxhash.xxh3_64_intdigest(gram.encode()) % (num_buckets - FIRST_BUCKET)
        for gram in grams[:GRAMS_PER_WORD]
    )


def text_ids(text: str, num_buckets: int, limit: int) -> list[int]:
    """The first `limit` n-gram buckets of the text, lower-cased."""
    found: list[int] = []
    for word in _WORD.findall(text.lower()):
        found.extend(word_grams(word, num_buckets))
        if len(found) >= limit:
            break
    return found[:limit]
