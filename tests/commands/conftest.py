"""A project to be in."""

from __future__ import annotations

from batches_command import project

__all__ = ["project"]
