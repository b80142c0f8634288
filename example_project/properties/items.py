"""What the example collects."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class PropertyItem:
    """One property of the site. ``price`` is in pounds a month."""

    url: str
    title: str
    price: float
    description: str
    address: str
    image_urls: list[str]
