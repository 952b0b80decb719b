"""Names and words of the simulated world: categories, their subtopics, what texts are made of."""

from __future__ import annotations

import numpy as np

SUBTOPICS_PER_CATEGORY = 5

CATEGORIES: dict[str, str] = {
    "music": "jazz indie opera hiphop folk",
    "football": "league transfers tactics worldcup futsal",
    "cooking": "baking grilling vegan noodles pastry",
    "travel": "hiking islands railways cities camping",
    "science": "physics genetics astronomy chemistry oceans",
    "gaming": "speedruns strategy consoles esports puzzles",
    "film": "horror animation documentary classics festivals",
    "politics": "elections parliament diplomacy taxes courts",
    "health": "sleep nutrition running yoga therapy",
    "fashion": "sneakers vintage couture denim jewellery",
    "technology": "phones robots chips software privacy",
    "finance": "stocks savings startups housing pensions",
    "animals": "cats dogs birds reptiles wildlife",
    "gardening": "orchids vegetables bonsai lawns compost",
    "books": "novels poetry thrillers biography comics",
    "history": "medieval antiquity archives empires maritime",
    "cars": "electric rallying restoration trucks motorbikes",
    "art": "painting sculpture ceramics photography murals",
    "parenting": "toddlers schools teenagers naming playgrounds",
    "humour": "memes standup satire pranks sketches",
}
"""Category to its subtopics. Worlds with more categories continue with numbered names."""

_COMMON = (
    "a new look at why we this is how the best of my first week with what nobody told you about"
    " after years today finally some notes from one more thing"
)
COMMON_WORDS = tuple(_COMMON.split())

_ONSETS = ("b", "br", "d", "f", "gl", "k", "kr", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "v")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "n", "r", "l", "s", "x", "nd")


def category_names(num_categories: int) -> list[str]:
    """The first `num_categories` category names."""
    known = list(CATEGORIES)[:num_categories]
    return known + [f"category-{n + 1}" for n in range(len(known), num_categories)]


def subtopic_names(num_categories: int) -> list[str]:
    """Subtopic names, SUBTOPICS_PER_CATEGORY in a row for each category."""
    names: list[str] = []
    for category in category_names(num_categories):
        known = CATEGORIES.get(category, "").split()
        names += known or [f"{category}-{n + 1}" for n in range(SUBTOPICS_PER_CATEGORY)]
    return names


def invented_words(rng: np.random.Generator, num_topics: int, words_per_topic: int) -> np.ndarray:
    """Pronounceable words that belong to one topic each. Shapes: (T, W) str."""
    num = num_topics * words_per_topic
    syllables = [
        [a + b + c for a, b, c in zip(*parts, strict=True)]
        for parts in (
            (rng.choice(_ONSETS, num), rng.choice(_VOWELS, num), rng.choice(_CODAS, num))
            for _ in range(2)
        )
    ]
    words = [first + second for first, second in zip(*syllables, strict=True)]
    return np.array(words).reshape(num_topics, words_per_topic)
