"""What a job has imported itself, as the warm process that it was forked from had not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable

OURS = ("scrapy", "scrapy_distributed", "twisted", "treq")


def late_imports(imported: Iterable[str], *modules: str) -> set[str]:
    """Of the modules that a job has *imported*. *modules*: of its warm process, beside what every one has."""
    code = "import json, sys; from scrapy_distributed.agent.fork_server import warm_up, warm_up_further"
    code += "; warm_up(sys.argv[1:]); warm_up_further(); print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, check=True)
    return set(imported) - set(json.loads(done.stdout))


def told_in(log: str) -> list[str]:
    """What a job with *log*, of the spider ``imports``, has imported, but for what its project asks for."""
    (imported,) = re.findall(r"Imported: (.+)", log)
    return [name for name in imported.split() if name.partition(".")[0] in OURS]
