"""The properties that the site offers, made from their numbers alone, and the truth about their prices."""

from __future__ import annotations

import random
from dataclasses import dataclass

FACTORS: dict[str, float] = {
    "jacuzzi": 1.25,
    "pool": 1.20,
    "garden": 1.10,
    "renovated": 1.05,
    "furnished": 1.00,
    "quiet": 1.00,
    "discount": 0.90,
    "basement": 0.80,
}
"""The truth about prices: each word in a title multiplies the price by its factor. Words are drawn
independently of each other and of everything else, each into a title with `WORD_PROBABILITY`."""

WORD_PROBABILITY = 0.25

BEDS = (1, 2, 3, 4, 5)
KINDS = ("flat", "house", "studio", "maisonette", "cottage", "loft")
STREETS = ("Angel Road", "Baker Street", "Church Lane", "Dean Street", "Elm Grove", "Fleet Street")
DISTRICTS = ("Angel", "Brixton", "Camden", "Dalston", "Ealing", "Finchley", "Greenwich", "Hackney")


@dataclass(frozen=True, kw_only=True)
class Property:
    """What one property page says. ``price`` is in pounds a month, ``image`` a path on the site."""

    title: str
    price: float
    description: str
    address: str
    image: str


def make_property(number: int, seed: int = 0) -> Property:
    """The property with this number: the same in every process, whatever was asked for before."""
    rng = random.Random(seed << 32 | number)
    words = [word for word in FACTORS if rng.random() < WORD_PROBABILITY]
    kind, district = rng.choice(KINDS), rng.choice(DISTRICTS)
    beds = rng.choice(BEDS)
    price = rng.uniform(800, 1200)
    for word in words:
        price *= FACTORS[word]
    return Property(
        title=", ".join([f"{beds} bed {kind} in {district}", *words]),
        price=round(price, 2),
        description=f"Property {number}: a {kind} with {beds} bedrooms, ten minutes from {district} station.",
        address=f"{rng.randint(1, 200)} {rng.choice(STREETS)}, {district}, London",
        image=f"/image_{number:06d}.gif",
    )


def true_shifts() -> dict[str, float]:
    """The shift of every word of the titles, as `words.py` defines it, in an endless site of this kind.

    A word that moves nothing is a little below 0: the means run over words, so titles with many words weigh more,
    and those are dearer.
    """
    even = {str(beds): 1 / len(BEDS) for beds in BEDS}
    even |= {kind: 1 / len(KINDS) for kind in KINDS} | {name.lower(): 1 / len(DISTRICTS) for name in DISTRICTS}
    share = {"bed": 1.0, "in": 1.0} | even | dict.fromkeys(FACTORS, WORD_PROBABILITY)  # of the titles that have it
    # Mean price of the titles with the word, if that of all titles is 1: the factors of other words cancel out.
    price = {word: factor / (1 + WORD_PROBABILITY * (factor - 1)) for word, factor in FACTORS.items()}
    words = sum(share.values())  # in a title
    total = sum(share[word] * price.get(word, 1.0) for word in share)  # of their prices
    shifts = {}
    for word, p in share.items():
        own = price.get(word, 1.0)
        shifts[word] = (own - (total - p * own) / (words - p)) / (total / words)
    return shifts
