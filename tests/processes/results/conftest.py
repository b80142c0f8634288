"""The folders of a merge."""

from __future__ import annotations

from merging import items, output

__all__ = ["items", "output"]
