"""Whether a worker lives, shown to a supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from awaiting import awaited

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.joining.health import Health


def test_a_number_is_a_port_of_this_machine_and_anything_else_a_file() -> None:
    assert Health.from_text("8080") == Health(host="127.0.0.1", port=8080)
    assert Health.from_text("0.0.0.0:8080") == Health(host="0.0.0.0", port=8080)
    assert Health.from_text("[::1]:8080") == Health(host="::1", port=8080)
    assert Health.from_text("/run/worker") == Health(file=Path("/run/worker"))
    assert Health.from_text("./worker:8080") == Health(file=Path("worker:8080").absolute())
    for port in ("0", "65536"):
        with pytest.raises(ConfigError, match=f"--health: found port {port}, expected 1 to 65535"):
            Health.from_text(port)


@awaited
async def test_a_file_is_touched_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    async with Health(file=file).shown():
        assert file.exists()
        os.utime(file, (0, 0))
        while not file.stat().st_mtime:
            await asyncio.sleep(0.05)
        file.unlink()
        while not file.exists():
            await asyncio.sleep(0.05)


@awaited
async def test_a_port_answers_whatever_is_asked() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Health(port=port).shown():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok\n")


@awaited
async def test_what_can_not_be_used_is_told(tmp_path: Path, unused_port: int) -> None:
    with pytest.raises(ConfigError, match=r"--health: 127\.0\.0\.1:\d+ can't be used"):
        async with Health(port=unused_port).shown():
            pass
    with pytest.raises(ConfigError, match=r"--health: .*/nowhere/alive can't be used"):
        async with Health(file=tmp_path / "nowhere" / "alive").shown():
            pass
