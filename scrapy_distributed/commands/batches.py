"""``scrapy batches``: what the ledger of a run says."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

if TYPE_CHECKING:
    from scrapy_distributed.ledger import LedgerReader

ACTIONS = ("list", "check", "failed")


class Command(ScrapyCommand):
    """Reads ledgers only; a coordinator may be writing them meanwhile."""

    requires_crawler_process = False
    default_settings = {"LOG_ENABLED": False}

    def syntax(self) -> str:
        return "[list|check|failed] [options]"

    def short_desc(self) -> str:
        return "Show the batches of distributed crawls, check that no URL is lost, list those that failed"

    def long_desc(self) -> str:
        return (
            "list: the last run of each ledger and its batches. check: exit code 0 only where the run is over and every"
            " diverted request is crawled, failed, filtered or dead. failed: URLs with their reasons."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--ledger", metavar="FILE", help="default: DISTRIBUTED_LEDGER, else every ledger of the project"
        )
        parser.add_argument("--all-runs", action="store_true", help="not only the last run of a ledger")
        parser.add_argument("--json", action="store_true", help="for programs")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.errors import LedgerError
        from scrapy_distributed.ledger import LedgerReader

        action = args[0] if args else "list"
        if action not in ACTIONS or len(args) > 1:
            raise UsageError(f"found {' '.join(args)!r}, expected one of {', '.join(ACTIONS)}")
        try:
            ledgers = [LedgerReader(path) for path in self._paths(opts.ledger)]
        except LedgerError as error:
            print(error, file=sys.stderr)
            self.exitcode = 2
            return
        runs = [(ledger, run) for ledger in ledgers for run in (ledger.runs() if opts.all_runs else ledger.runs()[-1:])]
        try:
            getattr(self, f"_{action}")(runs, as_json=opts.json)
            sys.stdout.flush()
        except BrokenPipeError:  # "| head" has seen enough; nothing is to be written at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _paths(self, given: str | None) -> list[Path]:
        from scrapy.utils.project import data_path

        from scrapy_distributed.errors import LedgerError

        assert self.settings is not None
        named = given or self.settings.get("DISTRIBUTED_LEDGER")
        if named:
            return [Path(named)]
        folder = Path(data_path("distributed"))
        paths = sorted(folder.glob("*.sqlite"))
        if not paths:
            raise LedgerError(f"{folder}: no ledger there; a distributed crawl makes one, --ledger names another")
        return paths

    def _list(self, runs: list[tuple[LedgerReader, dict[str, Any]]], *, as_json: bool) -> None:
        if as_json:
            shown = [
                run | {"ledger": str(ledger.path), "balance": ledger.balance(run["id"]).as_dict(),
                       "batches": ledger.batches(run["id"]), "feeds": ledger.feeds(run["id"])}
                for ledger, run in runs
            ]  # fmt: skip
            print(json.dumps({"runs": shown}))
            return
        for ledger, run in runs:
            print(_title(ledger, run))
            for batch in ledger.batches(run["id"]):
                done = ", ".join(
                    f"{batch[name]} {name}" for name in ("crawled", "failed", "filtered", "dead") if batch[name]
                )
                where = f" on {batch['node']}, attempt {batch['attempts']}" if batch["attempts"] else ""
                why = f" ({batch['reason']})" if batch["reason"] not in (None, "", "finished") else ""
                print(f"  batch {batch['number']}: {batch['size']} requests, {batch['state']}{where}{why}")
                if done:
                    print(f"    {done}")

    def _check(self, runs: list[tuple[LedgerReader, dict[str, Any]]], *, as_json: bool) -> None:
        balances = [(ledger, run, ledger.balance(run["id"])) for ledger, run in runs]
        good = [balance.settled and run["walked"] is not None for _, run, balance in balances]
        self.exitcode = 0 if good and all(good) else 1
        if as_json:
            shown = [
                {"name": run["name"], "ledger": str(ledger.path), **balance.as_dict()}
                for ledger, run, balance in balances
            ]
            print(json.dumps({"settled": self.exitcode == 0, "runs": shown}))
            return
        for (ledger, run, balance), settled in zip(balances, good, strict=True):
            verdict = "settled" if settled else "not finished" if balance.holds else f"OFF BY {balance.difference}"
            print(f"{_title(ledger, run)}\n  {balance}\n  {verdict}")
        if not runs:
            print("no runs")

    def _failed(self, runs: list[tuple[LedgerReader, dict[str, Any]]], *, as_json: bool) -> None:
        for ledger, run in runs:
            for outcome in ledger.outcomes(run["id"]):
                if as_json:
                    print(json.dumps({"run": run["name"], **outcome}))
                else:
                    print(f"{outcome['state']}\t{outcome['reason']}\t{outcome['url']}")


def _title(ledger: LedgerReader, run: dict[str, Any]) -> str:
    identity = run["identity"]
    return f"run {run['name']}, spider {identity['spider']} of {identity['project']} ({ledger.path})"
