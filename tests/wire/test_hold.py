"""The lock of a worker beside its receipt."""

from __future__ import annotations

import os
from pathlib import Path

from scrapy_distributed.wire.hold import hold, is_held


def test_it_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    receipt = tmp_path / "receipts" / "job.json"
    assert not is_held(receipt)
    file = hold(receipt)
    assert is_held(receipt)
    assert not is_held(receipt.with_name("other.json"))
    assert not os.get_inheritable(file.fileno())
    file.close()
    assert not is_held(receipt)
    hold(receipt).close()  # and may be held again
