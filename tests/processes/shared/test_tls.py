"""A server behind TLS: with an authority of one's own, with certificates for both sides, and with user and password."""

from __future__ import annotations

from pathlib import Path

import pytest
from awaiting import awaited
from certificate import make
from shared_runs import SharedRun
from tls_proxy import tls_proxy
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.errors import ConfigError, LedgerError
from scrapy_distributed.joining.reach import Reach
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.server import Server


def address(port: int, **environment: str) -> RedisAddress:
    """*environment*: names without what they begin with."""
    named = {f"DISTRIBUTED_REDIS_{name.upper()}": value for name, value in environment.items()}
    return RedisAddress.from_url(f"rediss://localhost:{port}/0", named)


async def use(address: RedisAddress) -> None:
    server = await Server.connect(address)
    try:
        shared = await SharedRun.begin(server)
        await shared.add(1, 2)
        assert len((await shared.claim()).bodies) == 2
        nothing = await shared.nothing("w2")
        await server.wait(shared.intake.keys, nothing.event, 0.05)
    finally:
        await server.close()


def other(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    return make(folder)


@awaited
async def test_the_file_of_an_authority_is_named_as_for_any_program(
    child: ValkeyChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, known = make(tmp_path)
    with tls_proxy(child.path, own) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        await use(address(port))
        monkeypatch.setenv("SSL_CERT_FILE", str(other(tmp_path / "other")[1]))
        with pytest.raises(LedgerError, match=r"certificate verify failed.*SSL_CERT_FILE=/path/ca\.pem") as refused:
            await use(address(port))
        assert str(refused.value).startswith(f"no connection to rediss://localhost:{port}/0 by TLS")
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        with pytest.raises(LedgerError, match=r"certificate verify failed: .*127\.0\.0\.1"):  # it is localhost's
            await use(RedisAddress.from_url(f"rediss://127.0.0.1:{port}/0", {}))


@awaited
async def test_who_we_are_is_told_by_a_certificate(
    child: ValkeyChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, known = make(tmp_path)
    stranger, its = other(tmp_path / "other")
    key = tmp_path / "key.pem"
    key.write_text(own.read_text()[known.stat().st_size :])
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    with tls_proxy(child.path, own, known=known) as port:
        await use(address(port, certificate=str(own)))
        await use(address(port, certificate=str(known), key=str(key)))
        for unknown in ({}, {"certificate": str(stranger)}):
            with pytest.raises(LedgerError, match=r"it takes no certificate of ours.*DISTRIBUTED_REDIS_CERTIFICATE"):
                await let_in(address(port, **unknown))
        for wrong in (
            {"certificate": str(tmp_path / "none")}, {"certificate": str(its), "key": str(key)}, {"key": str(key)},
        ):  # fmt: skip
            with pytest.raises(ConfigError, match=r"DISTRIBUTED_REDIS_KEY: found .* expected files with"):
                await use(address(port, **wrong))


async def let_in(address: RedisAddress) -> None:
    """Asks until the server has said why not: it may close the connection before that has come."""
    server = await Reach().insist(lambda: Server.connect(address))
    await server.close()


@awaited
async def test_a_user_of_an_access_list_logs_in_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, known = make(tmp_path)
    users = tmp_path / "users.acl"
    users.write_text("user default off\nuser bob on >s3cret ~{sd:* +@all -@admin\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    with valkey(aclfile=str(users)) as child, tls_proxy(child.path, own) as port:
        await use(address(port, username="bob", password="s3cret"))
        for wrong in ({}, {"username": "bob", "password": "other"}, {"username": "eve", "password": "s3cret"}):
            with pytest.raises(LedgerError, match=f"rediss://localhost:{port}/0: refuses us") as refused:
                await use(address(port, **wrong))
            assert "s3cret" not in str(refused.value)
