"""Where nodes come from: settings, ``scrapy.cfg``, ``.netrc``."""

from __future__ import annotations

from pathlib import Path

import pytest
from scrapy.settings import Settings

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import Target, addresses, elsewhere, project_of, targets_from_cfg
from scrapy_distributed.fleet.node import NodeAddress

SECRET = "s3cr3t-Pa55"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working folder without any configuration."""
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(project)
    return home


TARGETS = {
    "scrapyd1": Target(name="scrapyd1", url="http://one:6800/", username="u1", password=SECRET),
    "scrapyd2": Target(name="scrapyd2", url=f"https://u2:{SECRET}%40@two/prefix/"),
    "other": Target(name="other", url="http://127.0.0.1:6803"),
    "nowhere": Target(name="nowhere"),
    "wrong": Target(name="wrong", url="ftp://three"),
}


def urls(*hosts: str) -> list[tuple[str, str]]:
    return [(address.name, address.url) for address in addresses(hosts, targets=TARGETS)]


def test_targets_and_patterns() -> None:
    one, two = ("scrapyd1", "http://one:6800"), ("scrapyd2", "https://two:443/prefix")
    assert urls("scrapyd*") == [one, two]
    assert urls("scrapyd[12]") == [one, two]
    assert urls("[os]*[er2]") == [two, ("other", "http://127.0.0.1:6803")]
    assert urls("scrapyd2", "scrapyd?", "one:6800") == [two, one]


@pytest.mark.parametrize(
    ("entry", "name", "url"),
    [
        ("host", "host:6800", "http://host:6800"),
        (" host ", "host:6800", "http://host:6800"),
        ("host:1", "host:1", "http://host:1"),
        ("HOST.example", "host.example:6800", "http://host.example:6800"),
        ("http://host", "host:80", "http://host:80"),
        ("https://host/a/b/", "host:443/a/b", "https://host:443/a/b"),
        ("http://host:1/ä b", "host:1/%C3%A4%20b", "http://host:1/%C3%A4%20b"),
        ("[::1]", "[::1]:6800", "http://[::1]:6800"),
        ("::1", "[::1]:6800", "http://[::1]:6800"),
        ("[::1]:1", "[::1]:1", "http://[::1]:1"),
        ("https://[fe80::1]:1/x", "[fe80::1]:1/x", "https://[fe80::1]:1/x"),
        ("127.0.0.1:6803", "other", "http://127.0.0.1:6803"),
    ],
)
def test_hosts_and_urls(entry: str, name: str, url: str) -> None:
    assert urls(entry) == [(name, url)]


def test_each_node_once() -> None:
    assert urls("host", "host:6800", "http://host:6800/", "HOST") == [("host:6800", "http://host:6800")]


@pytest.mark.parametrize(
    ("entry", "credentials"),
    [
        ("host", ("", "")),
        ("http://u:p%3A%2F@host:6800", ("u", "p:/")),
        ("u:p@host", ("u", "p")),
        ("scrapyd1", ("u1", SECRET)),
        ("one", ("u1", SECRET)),
        ("http://x:y@one:6800", ("x", "y")),
        ("scrapyd2", ("u2", SECRET + "@")),
    ],
)
def test_credentials(entry: str, credentials: tuple[str, str]) -> None:
    [address] = addresses([entry], targets=TARGETS)
    assert (address.username, address.password) == credentials
    assert "@" not in address.url
    assert SECRET not in repr(address)


def test_credentials_of_netrc_come_last(home: Path) -> None:
    (home / ".netrc").write_text("machine one login n1 password np\nmachine host login n2 password np2\n")
    (home / ".netrc").chmod(0o600)
    found = [(a.username, a.password) for a in addresses(["scrapyd1", "host", "http://x:y@host:1"], targets=TARGETS)]
    assert found == [("u1", SECRET), ("n2", "np2"), ("x", "y")]


def test_a_broken_netrc_is_named_and_not_quoted(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / ".netrc").write_text(f"machine host nonsense {SECRET}\n")
    [address] = addresses(["host"], targets={})
    assert address.username == ""
    assert ".netrc can't be used" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([], r"no nodes: set DISTRIBUTED_TARGET_HOSTS, .*deploy:scrapyd1"),
        ([""], "empty entry"),
        (["scrapyd3"], r"'scrapyd3' is none of .*did you mean scrapyd2, scrapyd1\? .*write scrapyd3:6800"),
        (["crawler*"], r"'crawler\*' matches none of .*scrapyd1, scrapyd2"),
        (["nowhere"], "target 'nowhere' of scrapy.cfg has no url: add url = "),
        (["wrong"], "the url of target 'wrong' in scrapy.cfg is neither http nor https"),
        (["ftp://host"], "node 'ftp://host' is neither"),
        (["host:port"], "can't be read as host and port"),
        (["host:99999"], "can't be read as host and port"),
        (["host:0"], "has no host, no port"),
        (["http://:6800"], "has no host"),
        (["two words"], "has no host, no port, or a space"),
        (["http://host/?a=b"], r"has a '\?'"),
        ([f"http://u:{SECRET}/x@host"], "a node with credentials can't be read"),
        ([f"http://u:1/{SECRET}@host"], "a node with credentials has a .*in a password: .*%2F"),
        ([f"u:{SECRET}#@host:1"], "a node with credentials"),
        ([f"u:{SECRET}*@ho st"], "a node with credentials"),
    ],
)
def test_what_is_refused(hosts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        addresses(hosts, targets=TARGETS)
    assert SECRET not in str(caught.value)


def test_scrapy_cfg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_PASSWORD", SECRET)
    Path("scrapy.cfg").write_text(
        "[settings]\ndefault = x.settings\n"
        "[deploy]\nproject = estate\nusername = all\n"
        "[deploy:scrapyd1]\nurl = http://one:6800/\npassword = $NODE_PASSWORD\nversion = GIT\n"
        "[deploy:scrapyd2]\nurl = http://two:6800/\nusername = two\npassword = 100%%\n"
        "[deploy:later]\n"
    )
    targets = targets_from_cfg()
    assert list(targets) == ["scrapyd1", "scrapyd2", "later"]
    assert (targets["scrapyd1"].username, targets["scrapyd1"].password) == ("all", SECRET)
    assert (targets["scrapyd2"].username, targets["scrapyd2"].password) == ("two", "100%")
    assert (targets["scrapyd1"].project, targets["scrapyd1"].version) == ("estate", "GIT")
    assert SECRET not in repr(targets)
    assert [address.name for address in addresses(["scrapyd*"])] == ["scrapyd1", "scrapyd2"]


def test_the_deploy_section_alone_is_a_target() -> None:
    Path("scrapy.cfg").write_text("[deploy]\nurl = http://one:6800/\n")
    assert list(targets_from_cfg()) == ["default"]


def test_no_scrapy_cfg() -> None:
    assert targets_from_cfg() == {}


@pytest.mark.parametrize(
    "text", [f"password {SECRET}\n", f"[deploy:a]\nurl = http://a\npassword = {SECRET}%\n", f"[deploy\n{SECRET}"]
)
def test_a_broken_scrapy_cfg_is_not_quoted(text: str) -> None:
    Path("scrapy.cfg").write_text(text)
    with pytest.raises(ConfigError, match=r"scrapy.cfg can't be read .*expected sections") as caught:
        targets_from_cfg()
    assert SECRET not in str(caught.value)


def test_the_project(caplog: pytest.LogCaptureFixture) -> None:
    first, second, bare = Target(name="1", project="one"), Target(name="2", project="two"), Target(name="3")
    targets = {target.name: target for target in (first, second, bare)}
    nodes = [NodeAddress(name=name, url=f"http://{name}:6800") for name in ("1", "2", "3", "4:6800")]
    one, two, third, fourth = nodes
    settings = Settings({"BOT_NAME": "bot"})
    assert project_of({}, nodes, settings) == "bot"
    assert project_of({"1": first, "3": bare}, [fourth], settings) == "one"
    assert project_of(targets, [one, third], settings) == "one"
    assert project_of(targets, [two], settings) == "two"
    assert project_of(targets, [], settings) == "bot"  # workers on this machine alone, which have no use for a name
    assert not caplog.records
    for chosen in ([one, two], [third], [fourth]):
        caplog.clear()
        assert project_of(targets, chosen, settings) == "bot"
        assert "project: found one, two for these targets in scrapy.cfg, expected one for all" in caplog.text
        assert "BOT_NAME is used, bot; set DISTRIBUTED_PROJECT" in caplog.text
    caplog.clear()
    settings.set("DISTRIBUTED_PROJECT", "mine")
    assert project_of(targets, nodes, settings) == "mine"
    assert not caplog.records


def test_which_are_on_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrapy_distributed.fleet.addresses.gethostname", lambda: "Desk")
    here = ["127.0.0.1:6800", "localhost:6801", "[::1]:6800", "n1.localhost:6800", "desk:6800", "127.9.9.9:1"]
    assert elsewhere(addresses(here, targets={})) == []
    there = ["scrapyd1:6800", "https://scrapyd1/a", "10.0.0.7:6800", "[fe80::1]:6800"]
    assert elsewhere(addresses(here + there, targets={})) == ["scrapyd1", "10.0.0.7", "fe80::1"]
