"""The processes of a demo: they end with it, and it says how one ended that should not have."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from session import Child, DemoError, Session, SignalledError

PYTHON = (sys.executable, "-c")
READY = "print('ready', flush=True); "
FOR_EVER = "import signal; signal.pause()"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as session:
        yield session


def running(session: Session, name: str = "server", code: str = FOR_EVER) -> Child:
    child = session.start(name, *PYTHON, f"{READY}{code}")
    assert session.read(child, "^ready$") == ["ready"]
    return child


def test_all_end_with_it_also_those_that_do_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session.GRACE_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with Session(tmp_path) as session:
        first = running(session)
        second = session.start("deaf", *PYTHON, deaf)
        session.read(second, "^deaf$")
    assert first.process.returncode == -signal.SIGTERM
    assert second.process.returncode == -signal.SIGKILL


def test_a_child_that_does_not_start_says_why(session: Session) -> None:
    child = session.start("server", *PYTHON, "import sys; sys.exit('port 80 is taken')")
    with pytest.raises(DemoError) as raised:
        session.read(child, "^ready$")
    assert str(raised.value) == "server did not start, it ended with exit code 1; it wrote:\nport 80 is taken"


def test_a_child_that_is_never_ready(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session.START_SECONDS", 0.2)
    child = session.start("server", *PYTHON, FOR_EVER)
    with pytest.raises(DemoError, match="server is not ready after 0 s; it wrote nothing"):
        session.read(child, "^ready$")


def test_a_step_gives_its_exit_code(session: Session) -> None:
    running(session)
    assert session.finish(session.start("step", *PYTHON, "import sys; sys.exit(3)")) == 3
    assert session.run("step", *PYTHON, "print(1)").out.read_text() == "1\n"
    with pytest.raises(DemoError, match="step failed, it ended with exit code 3; it wrote nothing"):
        session.run("step", *PYTHON, "import sys; sys.exit(3)")


def test_a_server_that_is_killed_ends_the_step(session: Session) -> None:
    server, step = running(session), running(session, "step")
    server.process.kill()
    with pytest.raises(DemoError) as raised:
        session.finish(step)
    said = str(raised.value)
    assert said.startswith("server ended too early, step can't go on without it: it ended by signal 9 (Killed")
    assert said.endswith("it wrote:\nready")


def test_a_step_may_look_around_meanwhile(session: Session) -> None:
    step, looks = running(session, "step"), []

    def tick() -> None:
        looks.append(step.process.poll())
        step.process.terminate()

    assert session.finish(step, tick=tick) == -signal.SIGTERM
    assert looks[0] is None


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all(tmp_path: Path, signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with Session(tmp_path) as session:
        child = running(session)
        with pytest.raises(SignalledError, match=f"^ended by {signum.name}$"):
            session.finish(child, tick=lambda: os.kill(os.getpid(), signum))
    assert child.process.returncode == -signal.SIGTERM
    assert signal.getsignal(signum) is before
