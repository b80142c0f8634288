"""Why a job has ended without a receipt, from what it left on its node."""

from __future__ import annotations

from scrapy_distributed.errors import shortened


def cause_of_death(log: str | None) -> str:
    """Why a job has ended without a receipt, from the tail of its *log* (``None``: it has none)."""
    if log is None:
        return (
            "It has no log either, so it died at its start: most often scrapy_distributed, or something else that the"
            " project imports, is not installed on the node. The output of Scrapyd itself tells"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if line.partition(":")[0].rpartition(".")[2].endswith(("Error", "Exception"))]
    if not raised:
        return (
            f"The end of its log: {shortened((lines or ['(empty)'])[-1], 500)}. If that is no error, see that"
            " scrapy_distributed is activated in the project (ADDONS)"
        )
    logged = [line.partition(" ERROR: ")[2] for line in lines if " ERROR: " in line and "Traceback" not in line]
    hint = " (its __init__ must take **kwargs)" if "unexpected keyword argument" in raised[-1] else ""
    before = f", after {shortened(logged[-1], 300)}" if logged and logged[-1] not in raised[-1] else ""
    return f"Its log says: {shortened(raised[-1], 500)}{hint}{before}"
