"""Drafts of several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from listing import names

WRITER = """
import sys
from pathlib import Path
from scrapy_distributed.results.draft import draft, put, remove_dead

folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(100):
    remove_dead(folder)
    with draft(folder) as file:
        file.write(b"%d" % number)
        put(file, folder / name)
"""


def test_writers_that_remove_the_dead_all_the_time_do_not_remove_each_others(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name]) for name in "abc"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["a", "b", "c"]
    assert {(tmp_path / name).read_text() for name in "abc"} == {"99"}
