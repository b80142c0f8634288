"""The nodes of a fleet: where they are and who may use them, from settings, ``scrapy.cfg`` and ``.netrc``."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import netrc
import os
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from configparser import BasicInterpolation, ConfigParser, Error
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from socket import gethostname
from urllib.parse import SplitResult, quote, unquote, urlsplit

from scrapy.settings import BaseSettings
from scrapy.utils.conf import get_sources

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet import local_credentials
from scrapy_distributed.fleet.local_slots import is_local
from scrapy_distributed.fleet.node import NodeAddress

logger = logging.getLogger(__name__)

DEFAULT_PORT = 6800
REDIS_PORT = 6379
_PATTERN_CHARACTERS = frozenset("*?[")
_NO_NODES = (
    "no nodes: set DISTRIBUTED_TARGET_HOSTS, e.g. ['local'] or ['scrapyd1:6800'], or add sections [deploy:scrapyd1]"
    " with url = http://scrapyd1:6800 to scrapy.cfg"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A ``[deploy:NAME]`` section of ``scrapy.cfg``; what it does not set is empty. *url* may hold userinfo."""

    name: str
    url: str = field(default="", repr=False)
    project: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    version: str = ""


class _Environment(BasicInterpolation):
    """``%(option)s`` and ``$VARIABLE`` in values, as scrapyd-client 2 reads the same file."""

    def before_get(
        self,
        parser: MutableMapping[str, Mapping[str, str]],
        section: str,
        option: str,
        value: str,
        defaults: Mapping[str, str],
    ) -> str:
        return os.path.expandvars(super().before_get(parser, section, option, value, defaults))


def targets_from_cfg() -> dict[str, Target]:
    """The targets of every ``scrapy.cfg`` that Scrapy reads, by name. ``[deploy]`` is ``default``, and the others
    take from it what they do not set, as they do for ``scrapyd-deploy``.

    Raises ``ConfigError`` for a file that can't be parsed."""
    config = ConfigParser(interpolation=_Environment())
    try:
        config.read([source for source in get_sources() if source], encoding="utf-8")
        base = dict(config["deploy"]) if config.has_section("deploy") else {}
        targets = {"default": _target("default", base)} if base.get("url") else {}
        for section in config.sections():
            kind, _, name = section.partition(":")
            if kind == "deploy" and name:
                targets[name] = _target(name, {**base, **config[section]})
    except (Error, UnicodeDecodeError) as error:
        # The error's own text quotes lines of the file, which may hold a password.
        advice = "expected sections of 'name = value', with %% for a percent sign"
        raise ConfigError(f"scrapy.cfg can't be read ({type(error).__name__}): {advice}") from None
    return targets


def addresses(hosts: Sequence[str], *, targets: Mapping[str, Target] | None = None) -> list[NodeAddress]:
    """The Scrapyds that *hosts* name, each once, in order; workers on this machine are none.

    An entry is the name of a target, a shell pattern over these names, ``host``, ``host:port`` or a URL. Credentials
    come from the URL, else from ``scrapy.cfg``, else, for a node that ``scrapy fleet up`` runs, from there, else from
    ``.netrc``. Without *targets*, those of ``scrapy.cfg`` count.

    Raises ``ConfigError`` for an entry that leads to no node, and if there is nothing at all."""
    targets = targets_from_cfg() if targets is None else targets
    entries = [host.strip() for host in hosts if not is_local(host)]
    found = _each_once(address for entry in entries for address in _of_entry(entry, targets))
    if not found and not any(map(is_local, hosts)):
        raise ConfigError(_NO_NODES)
    return found


def all_addresses(targets: Mapping[str, Target]) -> list[NodeAddress]:
    """The Scrapyds of all *targets* that have a url, each once, in order. Raises ``ConfigError``, also if none has."""
    found = _each_once(_of_target(target) for target in targets.values() if target.url)
    if not found:
        raise ConfigError(_NO_NODES)
    return found


def places(hosts: Iterable[str]) -> list[tuple[str, int]]:
    """Host and port of the nodes that *hosts* name, of a Redis as well, and of no entry that leads to none:
    ``addresses`` says what is wrong with it."""
    try:  # without credentials, as of these there may be something to say, too
        targets = {name: Target(name=name, url=target.url) for name, target in targets_from_cfg().items()}
    except ConfigError:
        targets = {}
    found: list[tuple[str, int]] = []
    for entry in (host for host in hosts if not is_local(host)):
        with suppress(ConfigError, ValueError):
            if entry.strip().startswith(("redis://", "rediss://")):
                parts = urlsplit(entry.strip())
                found.append((parts.hostname or "", parts.port or REDIS_PORT))
                continue
            for parts in (urlsplit(address.url) for address in _of_entry(entry.strip(), targets)):
                found.append((parts.hostname or "", parts.port or DEFAULT_PORT))
    return found


def elsewhere(addresses: Iterable[NodeAddress]) -> list[str]:
    """The hosts of those that are on another machine, each once, as far as names tell."""
    hosts = dict.fromkeys(urlsplit(address.url).hostname or "" for address in addresses)
    return [host for host in hosts if not _is_here(host)]


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host in ("localhost", gethostname().lower()) or host.endswith(".localhost")


def project_of(targets: Mapping[str, Target], nodes: Sequence[NodeAddress], settings: BaseSettings) -> str:
    """The name of this project on *nodes*: ``DISTRIBUTED_PROJECT``, else the one that their targets agree on, or, where
    they name none, all targets; else ``BOT_NAME``. Targets that differ are named in a warning."""
    if configured := settings.get("DISTRIBUTED_PROJECT"):
        return str(configured)
    own = {targets[node.name].project for node in nodes if node.name in targets} - {""}
    named = own or {target.project for target in targets.values()} - {""}
    if len(named) == 1:
        return named.pop()
    project = str(settings["BOT_NAME"])
    if named and nodes:
        logger.warning(
            "project: found %s for these targets in scrapy.cfg, expected one for all, as a crawl is of one project:"
            " BOT_NAME is used, %s; set DISTRIBUTED_PROJECT to name another", _joined(sorted(named)), project,
        )  # fmt: skip
    return project


def version_of(targets: Mapping[str, Target], nodes: Iterable[NodeAddress]) -> str:
    """The version that the targets of *nodes* name, '' if none does. Raises ``ConfigError`` where they differ."""
    named = {targets[node.name].version for node in nodes if node.name in targets} - {""}
    if len(named) > 1:
        found = ", ".join(sorted(named))
        raise ConfigError(
            f"version: found {found} for these targets in scrapy.cfg, expected one for all, as a crawl uses one version"
            " on every node: --version NAME"
        )
    return named.pop() if named else ""


def _each_once(found: Iterable[NodeAddress]) -> list[NodeAddress]:
    """With credentials, for those that do not say their own."""
    once: dict[str, NodeAddress] = {}
    for address in found:
        once.setdefault(address.url, address if address.username else _with_credentials(address))
    return list(once.values())


def _target(name: str, values: Mapping[str, str]) -> Target:
    known = ("url", "project", "username", "password", "version")
    return Target(name=name, **{key: values[key].strip() for key in known if key in values})


def _of_entry(entry: str, targets: Mapping[str, Target]) -> list[NodeAddress]:
    if not entry:
        raise ConfigError("an empty entry in the list of nodes: expected a target's name, host:port or URL")
    if entry in targets:
        return [_of_target(targets[entry])]
    if _is_pattern(entry):
        names = fnmatch.filter(targets, entry)
        if not names:
            known = _joined(targets) or "it has none"
            raise ConfigError(f"{entry!r} matches none of the targets in scrapy.cfg ({known}): add [deploy:NAME] there")
        return [_of_target(targets[name]) for name in names]
    # "scrapyd4" beside targets scrapyd1 to scrapyd3 is rather a slip than a host.
    close = [] if {":", ".", "@"} & set(entry) else difflib.get_close_matches(entry, targets, cutoff=0.75)
    if close:
        raise ConfigError(
            f"{entry!r} is none of the targets in scrapy.cfg, did you mean {_joined(close)}? "
            f"For a host of that name write {entry}:{DEFAULT_PORT}"
        )
    return [_of_host(entry, targets)]


def _is_pattern(entry: str) -> bool:
    """Whether *entry* is one; a URL, an IPv6 literal and what holds a password are none."""
    is_host = "://" in entry or "@" in entry or (entry.startswith("[") and ":" in entry)
    return not is_host and bool(_PATTERN_CHARACTERS & set(entry))


def _of_target(target: Target) -> NodeAddress:
    if not target.url:
        raise ConfigError(f"target {target.name!r} of scrapy.cfg has no url: add url = http://host:{DEFAULT_PORT}")
    for key in ("url", "username", "password"):
        if unset := re.search(r"\$\{?(\w+)\}?", getattr(target, key)):
            what = f"the {key} of target {target.name} in scrapy.cfg"
            logger.warning("%s names $%s, which is not set in the environment", what, unset[1])
    address = _address(target.url, f"the url of target {target.name!r} in scrapy.cfg")
    username, password = (address.username or target.username), (address.password or target.password)
    return replace(address, name=target.name, username=username, password=password)


def _of_host(entry: str, targets: Mapping[str, Target]) -> NodeAddress:
    address = _address(entry, "a node with credentials" if "@" in entry else f"node {entry!r}")
    for target in targets.values():
        with suppress(ConfigError):  # a section that is not asked for may be wrong
            same = _of_target(target)
            if same.url == address.url:
                return replace(address, name=same.name) if address.username else same
    return address


def _address(url: str, source: str) -> NodeAddress:
    """The address in *url*, which may be ``host``, ``host:port`` or a URL. *source* stands for it in errors, since
    it may hold a password."""
    default_port = 443 if url.startswith("https://") else 80
    if "://" not in url:
        is_bare_ipv6 = url.count(":") > 1 and not url.startswith("[") and "@" not in url
        url, default_port = f"http://[{url}]" if is_bare_ipv6 else f"http://{url}", DEFAULT_PORT
    parts = _split(url, source)
    host = parts.hostname or ""
    netloc = f"{f'[{host}]' if ':' in host else host}:{parts.port or default_port}"
    place = netloc + quote(parts.path.rstrip("/"), safe="/%")
    return NodeAddress(
        name=place,  # with its path: a proxy may have many nodes behind one port
        url=f"{parts.scheme}://{place}",
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def _split(url: str, source: str) -> SplitResult:
    expected = "expected host:port, or a URL like http://host:6800"
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0  # reading the port checks it
    except ValueError:
        # Its own text may quote a password with a slash or a bracket in it.
        raise ConfigError(f"{source} can't be read as host and port: {expected}") from None
    if parts.scheme not in ("http", "https"):
        raise ConfigError(f"{source} is neither http nor https: {expected}")
    # The raw text as well: urlsplit drops line ends without a word, also those in a password.
    if not has_host or any(character.isspace() for character in parts.netloc) or not url.isprintable():
        raise ConfigError(f"{source} has no host, no port, or a space or a control character in them: {expected}")
    if parts.query or parts.fragment or "@" in parts.path:
        raise ConfigError(f"{source} has a '?', '#' or '/' that splits it (in a password: %3F, %23, %2F): {expected}")
    return parts


def _with_credentials(address: NodeAddress) -> NodeAddress:
    local = local_credentials.of_url(address.url)
    return replace(address, username=local.username, password=local.password) if local else _from_netrc(address)


def _from_netrc(address: NodeAddress) -> NodeAddress:
    """*address* with the credentials that ``.netrc`` has for its host, if any."""
    try:
        found = netrc.netrc().authenticators(urlsplit(address.url).hostname or "")
    except FileNotFoundError:
        return address
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        # The error's own text may quote the file.
        logger.warning("~/.netrc can't be used (%s): nodes get no credentials from it", type(error).__name__)
        return address
    return replace(address, username=found[0] or "", password=found[2] or "") if found else address


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
