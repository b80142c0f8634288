"""Which version of a project a run uses."""

from __future__ import annotations

import pytest

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.versions import choose_version


@pytest.mark.parametrize(
    ("versions", "asked", "expected"),
    [
        ([["r9", "r10"], ["r10", "r9"]], "", "r10"),
        ([["9_0", "10_0", "9_1"], ["9_0", "10_0"]], "", "10_0"),
        ([["r9", "r10"], ["r9"]], "", "r9"),
        ([["1714550400", "999"]], "", "1714550400"),
        ([["r9", "r10"], ["r9", "r10"]], "r9", "r9"),
        ([["1_0", "2_0"]], "1.0", "1_0"),
        ([["a_b-c"]], "a b-c", "a_b-c"),
        ([["a", "1"]], "", "1"),
        ([["r1", "r1-fix"]], "", "r1-fix"),
        ([["1_2_3", "1_2"], ["1_2", "1_2_3"]], "", "1_2_3"),
        ([["9" * 5000, "1" + "0" * 5000]], "", "1" + "0" * 5000),
        ([["r010", "r9"], ["r9", "r010"]], "", "r010"),
        ([["0", "a"]], "", "0"),
        ([["r\u00b2", "r"]], "", "r\u00b2"),
        ([[], []], "", ""),
        ([[], []], "r9", ""),
    ],
)
def test_the_newest_version_that_all_have(versions: list[list[str]], asked: str, expected: str) -> None:
    nodes = {f"n{number}": found for number, found in enumerate(versions)}
    assert choose_version(nodes, asked=asked, project="p") == expected
    assert choose_version(dict(reversed(nodes.items())), asked=asked, project="p") == expected


@pytest.mark.parametrize(
    ("versions", "asked", "words"),
    [
        ([["r1"], ["r2"]], "", ["one version on every node", "n0 has r1", "n1 has r2"]),
        ([["r1"], []], "", ["one version on every node", "n0 has r1", "n1 has none"]),
        ([["r1"], ["r1"]], "r.2", ["version 'r_2'", "n0 has r1"]),
        ([["r1", "r2"], ["r1"]], "r2", ["version 'r2'", "n0 has r1, r2; n1 has r1"]),
    ],
)
def test_no_common_version_is_refused_with_what_each_has(
    versions: list[list[str]], asked: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_version({f"n{n}": found for n, found in enumerate(versions)}, asked=asked, project="p")
    for word in (*words, "project 'p'", "scrapy fleet deploy"):
        assert word in str(caught.value)
