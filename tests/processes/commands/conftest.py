"""A project to be in."""

from __future__ import annotations

from batches_command import in_project

__all__ = ["in_project"]
