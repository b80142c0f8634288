"""The passwords of nodes that ``scrapy fleet up`` has made, where the other commands of the same user find them.

They are in the user's state folder, not in that of the fleet: a crawl may be started in another folder, and several
fleets may run. A file is locked by the ``fleet up`` that has written it, so what one leaves that was killed is known to
be of no use, whoever has its port by then.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scrapy_distributed.errors import ConfigError

USERNAME = "scrapy"
#: Where a local node is. Only there a password is sent that was found here.
HOSTS = ("127.0.0.1", "localhost")
LONGEST = 1000  # bytes of a password that is kept


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Of the node *name* at *url*, which is one of this machine."""

    name: str
    url: str
    username: str
    password: str = field(repr=False)


def password_of(fleet: Path) -> str:
    """That of the nodes in the folder *fleet*: made at the first time and kept there, so that a crawl goes on when the
    fleet is started again. Raises ``ConfigError`` where that can't be kept from others."""
    make_own(fleet)
    file = fleet / "password"
    if kept := _read_own(file):
        return kept
    made = secrets.token_urlsafe(24)
    write_private(file, made)
    return made


def make_own(folder: Path) -> None:
    """Make *folder* for this user alone, if it is not there.

    Raises ``ConfigError`` for one that is somebody else's, that everybody may write to, or that others can put another
    in place of. A group is trusted with it, as it is with the project: with a common umask it may write to both."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found, place = folder.lstat(), folder.resolve(strict=True)
        if os.geteuid() != found.st_uid or os.geteuid() != place.stat().st_uid or not place.is_dir():
            raise PermissionError("found a folder or a link of another user, or no folder")
        if place.stat().st_mode & stat.S_IWOTH:
            raise PermissionError("everybody may write to it")
        for parent in (folder.absolute().parent, place.parent):
            above = parent.stat()
            if above.st_uid not in (0, os.geteuid()):
                raise PermissionError(f"{parent} belongs to the user with the number {above.st_uid}")
            if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
                raise PermissionError(f"everybody may write to {parent}")
    except (OSError, RuntimeError) as error:  # the latter: links in a circle
        raise ConfigError(
            f"{folder}: can't be used for passwords and nodes: {error}: expected a folder of our own in one where"
            " nobody else may replace it; choose another, or chmod o-w"
        ) from None


def _read_own(file: Path) -> str:
    """What is in *file*; '' where it is not there, or where others may know it. Waits for nobody, follows no link.

    Raises ``ConfigError`` for what nobody but somebody else has put there."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
                raise PermissionError("found no plain file of our own with one name")
            return "" if found.st_mode & 0o077 else os.read(descriptor, LONGEST).decode("utf-8", "replace").strip()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(
            f"{file}: can't be used for the password of the nodes: {error}: see who has put it there, and remove it"
        ) from None


def write_private(file: Path, text: str) -> None:
    """For this user alone, whatever the mode of an earlier one was."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def folder() -> Path:
    """Where they are, by port."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "scrapy_distributed" / "nodes"


def make_folder() -> None:
    """Make the folder, for this user alone. Raises ``ConfigError`` if it can't be written."""
    try:
        place = folder()
        make_own(place)
        place.chmod(0o700)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError("it can't be written")
    except (OSError, RuntimeError, ConfigError) as error:  # the second: no home
        raise ConfigError(
            f"the folder for the passwords of the nodes can't be used: {error}: set XDG_STATE_HOME to one that can be"
            " written, give a password of your own (--username, --password-env), or none (--no-password)"
        ) from None


@contextmanager
def shared(credentials: Sequence[Credentials]) -> Iterator[Callable[[str], None]]:
    """Let the other commands of this user find *credentials* meanwhile. What it gives takes those of one node, by its
    URL, away before: somebody else may have its port by then."""
    with ExitStack() as stack:
        each = {one.url: stack.enter_context(ExitStack()) for one in credentials}
        for one in credentials:
            each[one.url].enter_context(_shared(one))
        yield lambda url: each[url].close() if url in each else None


@contextmanager
def _shared(credentials: Credentials) -> Iterator[None]:
    place = folder() / str(urlsplit(credentials.url).port)
    draft = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # before it has its name
        os.write(descriptor, json.dumps(asdict(credentials)).encode())
        draft.replace(place)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                if place.stat().st_ino == os.fstat(descriptor).st_ino:  # no other fleet's by now
                    place.unlink()
    finally:
        draft.unlink(missing_ok=True)
        os.close(descriptor)


def of_url(url: str) -> Credentials | None:
    """Those of the node at *url*, if it is a local one that runs."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in HOSTS or parts.path.strip("/"):
        return None
    return _read(folder() / str(parts.port or 80))


def all_running() -> list[Credentials]:
    """By port."""
    with suppress(OSError, RuntimeError):
        names = [name for name in os.listdir(folder()) if name.isdecimal()]
        return [found for name in sorted(names, key=int) if (found := _read(folder() / name))]
    return []


def _read(file: Path) -> Credentials | None:
    """What is in *file*, if whoever has written it still runs."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, RuntimeError):
        return None
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            pass  # it is locked
        else:
            return None
        with suppress(ValueError, TypeError):
            return Credentials(**json.load(opened))
    return None
