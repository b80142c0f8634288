"""What a job has imported itself, as the warm process that it was forked from had not: its spider tells at its end."""

from __future__ import annotations

import json
import re
import subprocess
import sys


def late_imports(log: str) -> set[str]:
    """The names of modules that the job with *log*, of the spider ``imports``, has imported, but for those that its
    project asks for."""
    code = "import json, sys; from scrapy_distributed.agent.fork_server import warm_up"
    code += "; warm_up([]); print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    (imported,) = re.findall(r"Imported: (.+)", log)
    late = set(imported.split()) - set(json.loads(done.stdout))
    return {name for name in late if name.partition(".")[0] in ("scrapy", "scrapy_distributed", "twisted", "treq")}
