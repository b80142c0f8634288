"""An FTP server to which workers bring their items: anonymous uploads, and nothing else.

    python ftp_server.py --port 2121 --staging staging --items items

A file is in the items folder only when it has arrived whole; see ``landing``. The client gets its 226 after that, when
file and folder are on the disk, so a feed that Scrapy calls stored is stored. (A disk that fails at the folder is only
logged: the file is there by then, and to refuse it would have its batch crawled twice.) There are no folders, no list,
no download, and nothing is replaced, renamed, resumed or deleted. APPE, which Scrapy sends for a feed with ``overwrite:
False``, stores a new file like STOR, and like STOR is refused where the name is taken.

FTP says that a file is over by closing the data connection, and a client that was killed closes it, too. What tells the
two apart is the control connection: a client that has sent all waits there for the answer, one that is gone has closed
it as well (RFC 959 takes that for an abort). So a moment after the end of the data it is looked at, and only the file
of a client that still waits, and has said nothing, lands. JSON lines and gzip files must also have a whole end.

What remains: a client killed in the middle, of whose two goodbyes the one on the control connection is lost on the way
and comes later than that moment, in a format that can't tell, or in JSON lines with a cut exactly after a line. Such a
file lands as a part. It comes from a worker that could not report it, so `scrapy batches merge`, which takes the feeds
that were reported and compares their number of items with the report, never takes it for a whole one. And a server that
is killed between landing a file and its answer leaves a file that its worker takes for not stored. It is whole, but its
batch is crawled again: the items folder then has both, `merge` takes the one that counts.
"""

from __future__ import annotations

import argparse
import logging
import resource
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from landing import Arrival, Fault, LandingError, LandingPlace, RefusedError
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.handlers import DTPHandler, FTPHandler
from pyftpdlib.servers import FTPServer

logger = logging.getLogger(__name__)

# Between the ends of the two connections of a client that was killed. On a busy machine, of 300 such clients 177 would
# have passed for whole without this, 1 with 0.005, and none of 1,700 with 0.2.
GRACE_SECONDS = 0.2
EXAMINERS = 4  # threads: one long examination does not hold up the others
RETRY_SECONDS = 1.0
ONCE_MORE_SECONDS = 1.0
LOOK_SECONDS = 0.01  # between two looks whether an examination is over
# An upload takes a fraction of a second, so so many at once are the work of a fleet of thousands.
SESSIONS = 512
SESSIONS_OF_ADDRESS = 256
DESCRIPTORS = 6  # of a session: two connections, a port that waits for one, the file, and two more to examine it
BROKEN_OFF = "426 The upload was broken off; nothing has landed."
NO_FOLDERS = "550 No folders here, expected a file name alone, as in ftp://HOST:PORT/NAME"
COMMANDS = (
    *("USER", "PASS", "QUIT", "NOOP", "SYST", "PWD", "CWD", "MKD"),
    *("TYPE", "MODE", "STRU", "ALLO", "PASV", "EPSV", "PORT", "EPRT", "STOR", "APPE", "ABOR"),
)


class Flat(AbstractedFS):  # type: ignore[misc]
    """What a client sees: one folder, ``/``. Paths stay as the client calls them, and name no file of this machine."""

    def ftp2fs(self, path: str) -> str:
        return str(self.ftpnorm(path))

    def validpath(self, path: str) -> bool:
        return True

    def open(self, path: str, mode: str) -> Arrival:
        session: Session = self.cmd_channel
        place: LandingPlace = session.server.place
        session.arrival = place.receive(path[1:])
        return session.arrival


class Upload(DTPHandler):  # type: ignore[misc]
    """The data connection. pyftpdlib alone takes its end for the end of the file (its ticket 311)."""

    file_obj: Arrival

    def handle_close(self) -> None:
        """The client has closed it."""
        if not self.receive:
            self.close()
        elif self._was_reset():
            self.cut()
        else:
            self.del_channel()  # else its end is reported for ever
            self._idler.cancel()  # no more bytes come, and an examination may take its time
            self.call_later(GRACE_SECONDS, self._end)

    def cut(self) -> None:
        self._resp = (BROKEN_OFF, logger.debug)
        self.close()

    def handle_error(self) -> None:
        """What the loop calls in its ``except`` block. pyftpdlib's own answers "426 None" where a disk is full."""
        error = sys.exc_info()[1]
        if isinstance(error, RefusedError):
            self._resp = (f"{error.code} {error}", logger.debug)
            self.close()
        else:
            super().handle_error()

    def _was_reset(self) -> bool:
        """A connection that was reset has no peer any more, one that was closed in order still has."""
        try:
            self.socket.getpeername()
        except OSError:
            return True
        return False

    def _end(self) -> None:
        if self._client_waits():
            examiners: ThreadPoolExecutor = self.cmd_channel.server.examiners
            self._land(examiners.submit(self.file_obj.examination()))
        else:
            self.cut()

    def _land(self, examined: Future[Fault | None]) -> None:
        """Other clients are served while the file is examined."""
        if not examined.done():
            self.call_later(LOOK_SECONDS, self._land, examined)
        elif self._client_waits():
            self.file_obj.land(examined.result)
            self._resp = ("226 Landed.", logger.debug)
            self.close()
        else:
            self.cut()

    def _client_waits(self) -> bool:
        """Whether the control connection is open and silent. Asked of the socket: the loop may have been busy with
        another file for longer than the grace, and not have seen what came there."""
        try:
            self.cmd_channel.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class Session(FTPHandler):  # type: ignore[misc]
    """The control connection."""

    proto_cmds = {name: FTPHandler.proto_cmds[name] for name in COMMANDS}
    abstracted_fs = Flat
    dtp_handler = Upload
    banner = "Uploads of whole files only."
    _in_dtp_queue: tuple[Arrival, str] | None
    data_channel: Upload | None

    def __init__(self, conn: socket.socket, server: UploadServer, ioloop: object) -> None:
        self.heard = time.monotonic()
        self.arrival: Arrival | None = None  # the last one
        super().__init__(conn, server, ioloop)

    @property
    def uploads(self) -> bool:
        """Whether a file comes, or is looked at."""
        return self.data_channel is not None and bool(self.data_channel.receive)

    @property
    def authorizer(self) -> DummyAuthorizer:
        return self.server.authorizer

    def close(self) -> None:
        """Also while pyftpdlib is about to take a file: a client can be gone when it is to hear that it may send."""
        super().close()
        if self.arrival is not None:
            self.arrival.close()

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        """Whoever sends a command before the answer to an upload has given that up: Python's ftplib says QUIT when it
        could not read on. (A NOOP only keeps the line open.)"""
        self.heard = time.monotonic()
        if cmd != "NOOP" and not self._closed:
            self._break_off()
        if self._closed:  # by what could not be answered: this line was read with the one before
            return
        if cmd.endswith("STAT"):  # pyftpdlib expects it in proto_cmds, where it would be a way to list
            self.respond("502 Not done here.")
        else:
            super().pre_process_command(line, cmd, arg)
        if self._closed:
            self._shutdown_connecting_dtp()  # the port that it has opened for nobody

    def _break_off(self) -> None:
        if self._in_dtp_queue is not None:  # its data connection has not been opened yet
            arrival, _ = self._in_dtp_queue
            self._in_dtp_queue = None
            arrival.close()
            self.respond(BROKEN_OFF)
        elif self.uploads:
            assert self.data_channel is not None
            self.data_channel.cut()

    def ftp_STOR(self, path: str, mode: str = "w") -> None:  # noqa: N802  # pyftpdlib finds it by the command
        """Also for APPE, whose mode would be "a"."""
        try:
            self.server.place.check(path[1:])
        except RefusedError as error:
            logger.warning("refused %s: %s", ascii(path[1:]), error)
            self.respond(f"{error.code} {error}")
        else:
            try:
                super().ftp_STOR(path)
            except AttributeError:  # it takes apart what it goes on to use
                if not self._closed:
                    raise

    def ftp_CWD(self, path: str) -> None:  # noqa: N802  # pyftpdlib finds it by the command
        self.respond('250 "/" is the only folder.' if path == "/" else NO_FOLDERS)

    def ftp_MKD(self, path: str) -> None:  # noqa: N802  # pyftpdlib finds it by the command
        logger.warning("refused the folder %s: there are none here", ascii(path))
        self.respond(NO_FOLDERS)


class UploadServer(FTPServer):  # type: ignore[misc]
    """Listens at once. Raises ``OSError`` where it can't.

    Sessions are limited, so that there is a descriptor for each thing that one of them needs, and no address may have
    all of them. Where a limit is reached, the session that was silent for longest ends: a worker is silent only as long
    as its line takes, and while it uploads it is left alone. So connections that only wait keep nobody out.
    """

    def __init__(self, host: str, port: int, place: LandingPlace, sessions: int = SESSIONS) -> None:
        self.place = place
        self.max_cons = sessions
        self.max_cons_per_ip = min(SESSIONS_OF_ADDRESS, max(1, sessions // 2))
        self.examiners = ThreadPoolExecutor(EXAMINERS, "examiner")
        self.authorizer = DummyAuthorizer()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that anonymous users may write here; that is the purpose
            self.authorizer.add_anonymous(str(place.staging), perm="emwa")
        super().__init__((host, port), Session)

    def handle_accept(self) -> None:
        """pyftpdlib's own stops to listen for ever where there is no descriptor for one connection."""
        try:
            super().handle_accept()
        except OSError as error:
            logger.error("can't take a connection, and will try again: %s", error.strerror)
            self.modify_ioloop_events(0)
            self.call_later(RETRY_SECONDS, self.modify_ioloop_events, self.ioloop.READ)

    def handle_accepted(self, sock: socket.socket, addr: tuple[str, int]) -> Session | None:
        ip = addr[0]
        if self.ip_map.count(ip) >= self.max_cons_per_ip:
            self._make_room(lambda one: one.remote_ip == ip)
        elif len(self.ip_map) >= self.max_cons:
            self._make_room(lambda one: True)
        session: Session | None = super().handle_accepted(sock, addr)
        return session

    def _accept_new_cons(self) -> bool:
        """pyftpdlib's own counts sockets, so uploads, which have two, would keep each other out."""
        return len(self.ip_map) <= self.max_cons

    def _make_room(self, among: Callable[[Session], bool]) -> None:
        sessions = [one for one in self.ioloop.socket_map.values() if isinstance(one, Session)]
        silent = [one for one in sessions if among(one) and not one.uploads]
        if silent:
            one = min(silent, key=lambda session: session.heard)
            logger.warning("ended a session of %s that was silent: there are too many", one.remote_ip)
            one.respond("421 Another client needs this session.")
            one.close()


def possible_sessions() -> int:
    """How many sessions can have all their descriptors. Raises this process's own limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (SESSIONS + 16) * DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return SESSIONS
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(1, limit // DESCRIPTORS - 16)


def end_at_signals() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(signum, end)


def end(signum: int, frame: FrameType | None) -> None:
    """As abrupt as it looks: what is on its way is set aside, and ``Arrival.land`` may be killed at any line. Once more
    a little later: Python drops what is raised while it finalizes an object."""
    signal.setitimer(signal.ITIMER_REAL, ONCE_MORE_SECONDS)
    raise SystemExit


def port(text: str) -> int:
    """A number on the command line that a port can have."""
    if not 0 <= (value := int(text)) <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is no port, expected 0 to 65535")
    return value


def main() -> None:
    """Read the command line and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="An FTP server for whole files: anonymous uploads, nothing else.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=port, default=2121, help="0 takes a free one (2121)")
    parser.add_argument("--staging", type=Path, required=True, help="folder for files on their way; see below")
    parser.add_argument("--items", type=Path, required=True, help="folder for files that have arrived")
    parser.epilog = "Both folders exist and are on one file system; the staging folder also keeps what did not land."
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("pyftpdlib").setLevel(logging.ERROR)
    end_at_signals()
    try:
        place = LandingPlace(options.staging, options.items)
        server = UploadServer(options.host, options.port, place, possible_sessions())
    except LandingError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{options.host}:{options.port}: can't listen there: {error}")
    with server:
        print(f"listening at ftp://{options.host}:{server.address[1]}", flush=True)
        server.serve_forever(handle_exit=False)


if __name__ == "__main__":
    main()
