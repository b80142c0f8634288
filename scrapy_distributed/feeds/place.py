"""The place of a worker's feed: whether it can be written, found out before the first page is fetched.

Only storages whose every step is known are tried: those of Scrapy for folders and FTP, and ``WholeFileStorage``. What a
subclass, or a storage of the project, would do with a file that is no feed nobody knows; S3 and Google Cloud Storage
have no step that is cheap and leaves nothing. Everything here blocks: it belongs into a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
import time
from collections.abc import Callable
from contextlib import closing
from enum import Enum
from ftplib import FTP, FTP_TLS, all_errors, error_perm, error_temp
from io import BytesIO
from pathlib import Path
from ssl import create_default_context
from typing import Any, TypeVar

from scrapy import Spider
from scrapy.extensions.feedexport import BlockingFeedStorage, FileFeedStorage, FTPFeedStorage
from scrapy.utils.asyncio import is_asyncio_available
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.threads import deferToThread

from scrapy_distributed.results.whole_file import WholeFileStorage

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROBE_BATCH = "doctor"  # the number of a batch without requests, whose job is to find out more
CONTENT = b"probe\n"
FTP_SECONDS = 5.0  # for each step of a server
FTP_PAUSES = (1.0, 3.0, 5.0)  # seconds between the tries: it may be away for a moment


class Trial(Enum):
    """What was found out about a place that did not refuse."""

    WRITTEN = "written"
    """A file was written there, and removed."""
    LEFT = "left"
    """A file was written there, and could not be removed."""
    REACHED = "reached"
    """The server let us in. Nothing was written: to see more would leave a file there."""
    UNTRIED = "untried"
    """Nobody knows how to try such a storage without harm."""


def try_place(storage: Any, name: str, *, options: dict[str, Any], spider: Spider, thorough: bool) -> Trial:
    """Try what *storage*, that of one feed with *options*, will do: with a file *name* beside the feed, on a server
    only if *thorough*; then no folder is left behind either. Raises what the storage would raise: ``OSError`` or one of
    ``ftplib.all_errors``."""
    if type(storage) in (FileFeedStorage, WholeFileStorage):
        return _try_folder(storage, name, options=options, spider=spider, thorough=thorough)
    if type(storage).open is BlockingFeedStorage.open:  # it keeps the feed in a temporary file until the end
        with storage.open(spider) as file:
            file.write(CONTENT)
            file.flush()
    if type(storage) is FTPFeedStorage:
        return _try_upload(storage, name) if thorough else _try_server(storage)
    return Trial.UNTRIED


def _try_folder(storage: Any, name: str, *, options: dict[str, Any], spider: Spider, thorough: bool) -> Trial:
    folder = Path(storage.path).absolute().parent
    stand_in = None
    if thorough and not os.path.lexists(folder):
        # What others may be trying at the same time can't be made, and removed again, by each of them.
        there = next(parent for parent in folder.parents if os.path.lexists(parent))
        stand_in = there / f".{name}.folder"
    try:
        # Not left to the storage: of two workers at once, one finds with Scrapy's own that it is there after all.
        (stand_in or folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(folder)) from None
    files = [(stand_in or folder) / f".{name}"]  # who reads the folder passes such names by
    try:
        own = type(storage)(str(files[0]), feed_options=options)
        file = own.open(spider)
        files.append(Path(file.name))
        with file:
            file.write(CONTENT)
            file.flush()
            own.store(file)
    finally:
        left = [path for path in files if not _removed(path)]
        if stand_in is not None and not left:
            stand_in.rmdir()
    return Trial.LEFT if left else Trial.WRITTEN


def _removed(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("Can't remove %s, which was written to see whether a feed can be written there: %s", path, error)
        return False
    return True


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Scrapy has the like from 2.15 on."""
    if is_asyncio_available():
        return await asyncio.to_thread(function, *args, **kwargs)
    return await maybe_deferred_to_future(deferToThread(function, *args, **kwargs))


# FTP


def _try_server(storage: FTPFeedStorage) -> Trial:
    """A server that says no is asked once, one that is away a few times."""
    for pause in FTP_PAUSES:
        try:
            return _look_in(storage)
        except error_perm:
            raise
        except all_errors as error:
            logger.info("FTP server %s:%d: %s: %s", storage.host, storage.port, type(error).__name__, error)
            time.sleep(pause)
    return _look_in(storage)


def _look_in(storage: FTPFeedStorage) -> Trial:
    """Go where the feed will go. A server that is there and slow is let be: Scrapy will wait for it, too."""
    with closing(_client(storage)) as ftp:
        try:
            _enter(ftp, storage)
        except TimeoutError:
            if ftp.sock is None:  # not even a connection
                raise
            logger.warning(
                "FTP server %s:%d does not answer within %g s, the feed may be late", storage.host, storage.port,
                FTP_SECONDS,
            )  # fmt: skip
            return Trial.UNTRIED
    return Trial.REACHED


def _try_upload(storage: FTPFeedStorage, name: str) -> Trial:
    with closing(_client(storage)) as ftp:
        stand_in = _enter(ftp, storage, stand_in=f".{name}.folder")
        try:
            if not _takes_delete(ftp, name):
                return Trial.REACHED
            ftp.storbinary(f"{'STOR' if storage.overwrite else 'APPE'} {name}", BytesIO(CONTENT))
            if not _goes_away(ftp.delete, name, storage):
                return Trial.LEFT
        finally:
            if stand_in:
                ftp.cwd("..")
                _goes_away(ftp.rmd, stand_in, storage)
    return Trial.WRITTEN


def _goes_away(remove: Callable[[str], str], name: str, storage: FTPFeedStorage) -> bool:
    try:
        remove(name)
    except (error_perm, error_temp) as error:
        logger.warning("Can't remove %s from FTP server %s: %s", name, storage.host, error)
        return False
    return True


def _client(storage: FTPFeedStorage) -> FTP:
    """Not connected yet."""
    if getattr(storage, "tls", False):  # not every Scrapy of ours knows ftps
        return FTP_TLS(context=create_default_context(), timeout=FTP_SECONDS)
    return FTP(timeout=FTP_SECONDS)


def _enter(ftp: FTP, storage: FTPFeedStorage, *, stand_in: str = "") -> str:
    """Connect *ftp* to the feed's folder, and make that as the storage does. Where it is missing and there is a
    *stand_in*, a folder of that name is made, and entered, in place of the first that is missing; returns the name,
    or ''."""
    ftp.connect(storage.host, storage.port)
    ftp.login(storage.username, storage.password)
    if isinstance(ftp, FTP_TLS):
        ftp.prot_p()
    ftp.set_pasv(not storage.use_active_mode)
    folder, missing = posixpath.dirname(storage.path), []
    while not _goes(ftp, folder) and folder != posixpath.dirname(folder):
        missing.append(folder)
        folder = posixpath.dirname(folder)
    if missing and stand_in:
        ftp.mkd(stand_in)
        ftp.cwd(stand_in)
        return stand_in
    for folder in reversed(missing):
        try:
            ftp.mkd(folder)
        except error_perm:
            if not _goes(ftp, folder):  # else another worker has made it meanwhile
                raise
    ftp.cwd(posixpath.dirname(storage.path))
    return ""


def _goes(ftp: FTP, folder: str) -> bool:
    try:
        ftp.cwd(folder)
    except error_perm:
        return False
    return True


def _takes_delete(ftp: FTP, name: str) -> bool:
    """Whether the server knows how to delete a file. One that takes uploads alone (the example's does) would show the
    probe to all who read there."""
    try:
        ftp.delete(name)
    except (error_perm, error_temp) as error:  # there is no such file, if it is no more than that
        return not str(error).startswith("50")  # 500, 502: it has no such command
    return True
