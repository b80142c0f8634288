"""A pipeline that does not like every item."""

from __future__ import annotations

from typing import Any


class Refuse:
    def process_item(self, item: Any) -> Any:
        if isinstance(item, dict) and "refuse" in item:
            raise KeyError(item["refuse"])
        return item
