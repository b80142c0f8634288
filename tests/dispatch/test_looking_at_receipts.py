"""Receipts that say nothing, and nodes that say no to a question, as the dispatcher sees them on real ports."""

from __future__ import annotations

import logging

import pytest
import pytest_twisted
from fake_scrapyd import FakeJob, Fault
from rig import LEASE, PATIENCE, POLL, Rig


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("data", [b"", b"{", b'{"format": 1}'])
async def test_a_receipt_that_can_not_be_read_is_none(rig: Rig, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.fakes[0].files[f"p/s.receipts/{job.id}.json"] = data
    await rig.look(10)
    assert rig.attempts() == [("n0", "sent")]
    assert caplog.text.count(f"receipt of job {job.id}") == 1
    await rig.look(PATIENCE)  # it is asked for no more often than a quiet one, whatever moves there: it may be huge
    rig.fakes[0].requests.clear()
    for number in range(round(PATIENCE / POLL)):
        rig.fakes[0].jobs.append(FakeJob(f"other{number}", "q", "s", "1", {}, {}, state="running"))
        await rig.look()
    assert sum(".receipts/" in request for request in rig.fakes[0].requests) == 1
    rig.fakes[0].finish()
    await rig.look(PATIENCE)
    assert rig.attempts()[0] == ("n0", "rejected")


@pytest_twisted.ensureDeferred
async def test_a_receipt_that_comes_cut_is_read_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It was replaced by a longer one when the node had said how long it is."""
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    path = f"p/s.receipts/{job.id}.json"
    whole = rig.fakes[0].files[path]
    rig.fakes[0].files[path] = whole[:-9]
    await rig.look()
    assert rig.attempts() == [("n0", "sent")]
    rig.fakes[0].files[path] = whole
    await rig.look()
    assert rig.attempts() == [("n0", "accepted")]
    assert "WARNING" not in caplog.text


@pytest_twisted.ensureDeferred
async def test_the_receipt_of_another_job_is_none(rig: Rig) -> None:
    rig.batches(2, 2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    files = rig.fakes[0].files
    files[f"p/s.receipts/{job.id}.json"] = files.pop(f"p/s.receipts/{job.id}.json").replace(b"000001-1", b"000002-1")
    await rig.look(10)
    assert rig.attempts() == [("n0", "sent")]
    assert rig.attempts(2) == [("n1", "sent")]


@pytest_twisted.ensureDeferred
async def test_a_question_about_a_job_that_is_refused_is_not_held_against_its_node(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.batches(2, 2)
    await rig.start()
    rig.fakes[0].start_pending()
    rig.fakes[0].faults["logs"] = Fault.FORBIDDEN
    await rig.look(20)
    assert rig.members[0].trust.well
    assert rig.count("node_errors/n0") == 0
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    await rig.send(1, 1)
    assert len(rig.jobs(0)) == 2
    await rig.look(LEASE)
    assert rig.attempts()[0] == ("n0", "unknown")  # nobody can see that it lives
    rig.fakes[0].faults.clear()
