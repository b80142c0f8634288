"""The pages that workers in child processes crawl."""

from __future__ import annotations

from worker_crawl import site

__all__ = ["site"]
