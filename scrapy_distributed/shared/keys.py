"""The names of the keys. All of a project begin with one hash tag, so that they are on one server of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1


@dataclass(frozen=True)
class Keys:
    """Those of a *project*: ``runs`` (sorted set: run -> ms when begun), ``open`` (list of the runs that are not over),
    ``identity`` (hash: digest of an identity -> its run; ``stored``: the last one whose result is stored), ``events``
    (stream: what idle workers and coordinators wait for), ``server`` (hash: which one it is, and since when); of
    workers ``workers`` (hash: JSON), ``slots`` (hash: their number), ``heard`` (sorted set: ms when heard of last) and
    ``claims`` (hash: the last one)."""

    project: str

    @property
    def all(self) -> str:
        """What all of them begin with; it is told to each script."""
        return f"{{sd:{self.project}}}"

    @property
    def events(self) -> str:
        return f"{self.all}:events"

    @property
    def runs(self) -> str:
        return f"{self.all}:runs"

    def of(self, run: str, *rest: object) -> str:
        """A key of *run*: the hash of the run itself, or what the rest names: ``items`` is the stream of its results,
        which others read."""
        return ":".join([self.all, run, *map(str, rest)])


def identity_key(identity: str) -> str:
    """What stands for the JSON of an identity."""
    return sha1(identity.encode(), usedforsecurity=False).hexdigest()
