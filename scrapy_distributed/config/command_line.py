"""What the command that starts a crawl says holds in its jobs, too: which arguments and settings go with them.

Those of the command line are known by their priority. A script gives its settings (``CrawlerProcess(settings={...})``)
the priority of the project's; they are those that the project's module has not, or has with another value.

What goes with a job to a Scrapyd is in its command line there, for all to see: what looks like a secret does not go.
Workers on this machine are told all of it, by a pipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from scrapy.settings import SETTINGS_PRIORITIES, BaseSettings, Settings, default_settings

from scrapy_distributed.config.config import PREFIX, Config
from scrapy_distributed.config.values import import_path
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.password import is_secret
from scrapy_distributed.words import shortened

#: When the crawl ends: that is said to the coordinator, and by it to jobs.
LIMITS = ("CLOSESPIDER_ITEMCOUNT", "CLOSESPIDER_ERRORCOUNT", "CLOSESPIDER_TIMEOUT")
#: Settings of this crawl alone: its log, its feeds, when it ends, and where its code is.
STAY = ("CLOSESPIDER_*", "LOG_*", "JOBDIR", "FEEDS", "FEED_URI", "FEED_FORMAT", "SPIDER_MODULES", "NEWSPIDER_MODULE")
#: What ``scrapy`` itself puts into the settings, by its environment; and ours, each of which has a rule of its own.
_NOT_GIVEN = ("EDITOR", "SETTINGS_MODULE", "PROJECT", "CHECK", "PYTHON_SHELL", f"{PREFIX}*")
_OURS = "scrapy_distributed."
#: An argument that Scrapyd gives to each of its jobs, also to a coordinator that is one.
_OF_SCRAPYD = "_job"


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """*args* and *settings* go with each job, as text. The names of those that do not: *stay*, settings of this crawl
    alone; *secrets*, written as on the command line; *no_text*, settings that no command line can give. *private*:
    options that give the secrets, for jobs whose command line nobody sees."""

    args: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    stay: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    private: tuple[str, ...] = field(default=(), repr=False)
    no_text: tuple[str, ...] = ()

    @classmethod
    def read(cls, settings: BaseSettings, config: Config, arguments: Mapping[str, Any]) -> CommandLine:
        """*settings* of a crawl whose spider was given *arguments*. Raises ``ConfigError`` for an argument that can't
        be the same in a job."""
        args = {name: _argument(name, value) for name, value in arguments.items() if name != _OF_SCRAPYD}
        hidden = {name for name in args if is_secret(name) and name not in config.worker_args}
        given = [name for name in _given(settings) if not _is_of_workers(name, settings, config)]
        travel = [name for name in given if not _matches(name, STAY)]
        texts = {name: _as_text(name, settings[name]) for name in travel}
        open_to_all = {name: text for name, text in texts.items() if not is_secret(name)}
        secret_settings = {name: text for name, text in texts.items() if is_secret(name) and text is not None}
        return cls(
            args={name: text for name, text in args.items() if name not in hidden},
            settings={name: text for name, text in open_to_all.items() if text is not None},
            stay=tuple(name for name in given if name not in travel),
            secrets=(*_options("-a", hidden), *_options("-s", filter(is_secret, travel))),
            private=(
                *(part for name in sorted(hidden) for part in ("-a", f"{name}={args[name]}")),
                *(part for name, text in secret_settings.items() for part in ("-s", f"{name}={text}")),
            ),
            no_text=tuple(sorted(name for name, text in open_to_all.items() if text is None)),
        )

    @property
    def summary(self) -> str:
        """What goes with each job and what does not, by name; '' where there is nothing to say."""
        travel = [*_options("-a", self.args), *_options("-s", self.settings)]
        parts = [f"for each job: {_listed(travel)}"] if travel else []
        limits = [name for name in self.stay if _matches(name, LIMITS)]
        own = [name for name in self.stay if name not in limits]
        parts += [f"for the crawl as a whole: {_listed(_options('-s', limits))}"] if limits else []
        parts += [f"for this crawl alone: {_listed(_options('-s', own))}"] if own else []
        return "; ".join(parts)

    def warnings(self, *, scrapyds: bool, joined: bool = False) -> list[str]:
        """What jobs lack, and how they get it. *scrapyds*: not all of them are on this machine; *joined*: workers that
        have joined a shared run start them."""
        found = []
        if self.secrets and joined:
            found.append(
                f"{_listed(self.secrets)}: not told to workers, as the name is that of a secret and what they are told"
                " lies in Redis. Set it in the settings of the project there, or have the spider read it from the"
                " environment of the workers; if it is none, name the argument in DISTRIBUTED_WORKER_ARGS, or give the"
                " setting in DISTRIBUTED_WORKER_SETTINGS"
            )
        if self.secrets and scrapyds:
            found.append(
                f"{_listed(self.secrets)}: not sent to the nodes, as the name is that of a secret and ps shows there"
                " what a job is given. Set it in the settings of the deployed project, or have the spider read it from"
                " the environment of the nodes; if it is none, name the argument in DISTRIBUTED_WORKER_ARGS, or give"
                " the setting in DISTRIBUTED_WORKER_SETTINGS"
            )
        if self.no_text:
            found.append(
                f"{_listed(self.no_text)}: not sent to the nodes, as this script sets a value that no -s NAME=VALUE can"
                " give. Set it in the settings of the deployed project, or in DISTRIBUTED_WORKER_SETTINGS"
            )
        return found


def _argument(name: str, value: Any) -> str:
    shown = shortened(name)
    if name == "batch":
        raise ConfigError(
            "spider argument 'batch': found one of yours, and each job has the number of its batch there, for %(batch)s"
            " in the URLs of feeds: give it another name"
        )
    if type(value) is not str:
        raise ConfigError(
            f"spider argument {shown!r}: found a value of type {type(value).__name__}, expected a string: jobs get"
            " their arguments as text, as -a NAME=VALUE gives them"
        )
    return value


def _given(settings: BaseSettings) -> Iterator[str]:
    """The names of the settings that the deployed project does not have, or not so."""
    deployed = Settings()
    if module := settings["SETTINGS_MODULE"]:
        deployed.setmodule(module)
    for name in sorted(settings):
        priority = settings.getpriority(name) or 0
        if priority < SETTINGS_PRIORITIES["project"] or _matches(name, _NOT_GIVEN):
            continue
        of_script = priority == SETTINGS_PRIORITIES["project"] and not _is_same(name, settings[name], deployed[name])
        if priority >= SETTINGS_PRIORITIES["cmdline"] or of_script:
            yield name


def _is_same(name: str, value: Any, deployed: Any) -> bool:
    """Whether a job has *value* by itself. The settings of a crawl are copies: of an object that does not say what it
    is equal to only the type can be compared."""
    if (text := _as_text(name, value)) is not None:
        return text == _as_text(name, deployed)
    is_opaque = "__eq__" not in {name for kind in type(value).__mro__[:-1] for name in vars(kind)}
    return type(value) is type(deployed) and ((is_opaque and not callable(value)) or bool(value == deployed))


def _is_of_workers(name: str, settings: BaseSettings, config: Config) -> bool:
    """Whether ``DISTRIBUTED_WORKER_SETTINGS`` says what it is in a job: at the same priority it does."""
    of_workers = settings.getpriority(f"{PREFIX}WORKER_SETTINGS") or 0
    return name in config.worker_settings and (settings.getpriority(name) or 0) <= of_workers


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _as_text(name: str, value: Any) -> str | None:
    """*value* as ``-s`` gives it; ``None`` if no text means the same. Scrapy reads its own settings from text as well;
    others may be read as they are."""
    if type(value) is str:
        return value
    if not hasattr(default_settings, name):
        return None
    try:
        return _text(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    """Raises ``TypeError`` or ``ValueError`` for what has none."""
    if isinstance(value, Mapping):
        named = {_path(key): one for key, one in value.items()}
        kept = {key: one for key, one in named.items() if not key.startswith(_OURS)}  # the add-on adds them there, too
        return json.dumps(kept, default=_path)
    if isinstance(value, list | tuple):
        texts = [_text(one) for one in value]
        if any("," in text for text in texts):
            raise ValueError("a comma, which parts the texts of a list")
        return ",".join(texts)
    return str(value) if isinstance(value, int | float | Path) else _path(value)


def _path(component: Any) -> str:
    path = str.__str__(component) if isinstance(component, str) else import_path(component)
    if path.startswith("__main__."):
        raise ValueError("a name that only this script has")
    return path


def _options(option: str, names: Iterable[str]) -> list[str]:
    return [f"{option} {name}" for name in sorted(names)]


def _listed(names: Iterable[str]) -> str:
    return shortened(", ".join(names), 1000)
