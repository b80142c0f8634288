"""One job of this worker: what is known of it, and what is due. Pure; times are the clock's seconds.

starting -> begun (a receipt tells of something done) -> over

From each it may stall: then it is to end, by INT and after a while by KILL, and its lease is not renewed. From each it
may be dismissed: then it is to end by INT alone, as its last receipt is waited for, unless its dismissal says how long.
"""

from __future__ import annotations

from signal import SIGINT, SIGKILL, Signals

from scrapy_distributed.wire.receipt import Receipt

START_SECONDS = 120.0  # that a job has for its first receipt, where it may not stand still for so long
KILL_AFTER = 30.0  # seconds between INT and KILL for a job that has stalled


class Watch:
    """That of a job which was submitted at *now*. It may stand still for *stall* seconds."""

    def __init__(self, now: float, *, stall: float) -> None:
        self.stall = stall
        self.sequence = 0  # of its newest receipt
        self.begun = False
        self.began_at: float | None = None
        self.dismissed = False
        self.signalled = False  # it was told to end
        self._kill_after = float("inf")
        self._signalled_at = 0.0
        self._killed = False
        self._activity = -1
        self._active_at = now

    def reports(self, receipt: Receipt, now: float) -> bool:
        """Returns whether it has done something since the last one."""
        self.sequence = receipt.sequence
        if receipt.activity and not self.begun:
            self.begun, self.began_at = True, now
        activity = receipt.activity + bool(receipt.finish_reason)  # when it stores its feed the time begins anew
        acts = activity > self._activity
        if acts:
            self._activity, self._active_at = activity, now
        return acts

    def stalled(self, now: float) -> bool:
        """It shows no progress: its lease is not to be renewed."""
        patience = self.stall if self.sequence else max(self.stall, START_SECONDS)
        return now - self._active_at >= patience

    def still_for(self, now: float) -> float:
        """Seconds since something was seen to be done."""
        return now - self._active_at

    def dismiss(self, *, kill_after: float = float("inf")) -> None:
        """It is to report what it has done, and has *kill_after* seconds for that."""
        self.dismissed, self._kill_after = True, min(kill_after, self._kill_after)

    def signal_due(self, now: float) -> Signals | None:
        """What is to end it now, if anything is."""
        stalled = self.stalled(now)
        if not (stalled or self.dismissed) or self._killed:
            return None
        if not self.signalled:
            self.signalled, self._signalled_at = True, now
            return SIGINT
        patience = min(self._kill_after, KILL_AFTER if stalled else float("inf"))
        if now - self._signalled_at < patience:
            return None
        self._killed = True
        return SIGKILL
