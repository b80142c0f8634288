"""Which nodes a command is about, and what it does where these are workers on this machine alone."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

import pytest
from scrapy.settings import Settings

from scrapy_distributed.commands import chosen_nodes
from scrapy_distributed.commands.fleet import Command
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import Target

TARGETS = {
    "one": Target(name="one", url="http://one:6800"),
    "local": Target(name="local", url="http://127.0.0.1:6800", username="u"),
    "none": Target(name="none"),
}


@pytest.mark.parametrize(
    ("names", "hosts", "scrapyds", "slots"),
    [
        ((), (), ["one", "local"], 0),  # a target of that name is a Scrapyd
        ((), ("local:3",), [], 3),
        ((), ("local:3", "two"), ["two:6800"], 3),
        (("local:2",), ("two",), [], 2),
        (("one",), ("local:2",), ["one"], 0),
        (("one", "local:2", "two:1"), (), ["one", "two:1"], 2),
        (("loca*",), (), ["local"], 0),
    ],
)
def test_names_then_the_setting_then_all_targets(
    names: Sequence[str], hosts: Sequence[str], scrapyds: list[str], slots: int
) -> None:
    chosen = chosen_nodes(names, Settings({"DISTRIBUTED_TARGET_HOSTS": list(hosts)}), TARGETS)
    assert ([address.name for address in chosen.scrapyds], chosen.slots) == (scrapyds, slots)


def test_a_target_of_that_name_makes_it_ambiguous() -> None:
    with pytest.raises(ConfigError, match="the name of a target in scrapy\\.cfg and means workers"):
        chosen_nodes(["local"], Settings(), TARGETS)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ConfigError, match="no nodes: set DISTRIBUTED_TARGET_HOSTS"):
        chosen_nodes([], Settings(), {"none": Target(name="none")})


def test_nothing_is_deployed_to_workers_on_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRAPY_SETTINGS_MODULE", "none.is.imported")
    command = Command()
    command.settings = Settings({"DISTRIBUTED_TARGET_HOSTS": ["local"]})
    parser = ArgumentParser()
    command.add_options(parser)
    command.run(["deploy"], parser.parse_args([]))
    said = capsys.readouterr()
    assert (said.out, said.err, command.exitcode) == (
        "nothing to deploy: workers on this machine run the project as it lies here\n",
        "",
        0,
    )
