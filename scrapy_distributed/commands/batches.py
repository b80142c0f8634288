"""``scrapy batches``: what the ledger of a run says, and what is done with a run that is over."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from scrapy_distributed.commands import at_least, refuse_options
from scrapy_distributed.commands.batch_account import Account, verdict_of
from scrapy_distributed.commands.batch_words import (
    STATES,
    attempt_lines,
    batch_lines,
    outcome_line,
    print_merged,
    title,
)
from scrapy_distributed.ledger.balance import raised_lines
from scrapy_distributed.ledger.states import BatchState
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.words import counted, escaped

if TYPE_CHECKING:
    from scrapy_distributed.commands.ledgers import Run
    from scrapy_distributed.commands.operating import Operator
    from scrapy_distributed.ledger.wanted import Wanted

ACTIONS = (
    "list", "show", "log", "failed", "check", "pause", "resume", "cancel", "retry", "export", "merge", "forget",
)  # fmt: skip
#: What an action takes besides its name, in the words of an error message; the others take nothing.
WORDS = {
    "show": "the number of a batch, like 12",
    "log": "the number of a batch, like 12, or with that of an attempt at it, like 12.2",
    "merge": "the folders with the feeds; none: those where workers write them",
    "forget": "the name of a run, as list shows it",
}
#: What the one word of an action looks like.
PATTERNS = {"show": r"[0-9]{1,18}", "log": r"[0-9]{1,18}(\.[0-9]{1,18})?", "forget": r"\w[\w-]{0,99}"}
#: Options that not every action has: attribute -> option and actions.
OPTIONS = {
    "all_runs": ("--all-runs", ("list", "failed", "check")),
    "named": ("--run", tuple(action for action in ACTIONS if action != "forget")),
    "force": ("--force", ("forget",)),
    "strict": ("--strict", ("check",)),
    "follow": ("-f", ("log",)),
    "reason": ("--reason", ("failed", "retry")),
    "state": ("--state", ("list", "failed", "retry")),
    "node": ("--node", ("list",)),
    "limit": ("--limit", ("list",)),
    "callback": ("--callback", ("retry",)),
    "lost_items": ("--lost-items", ("retry",)),
    "output": ("-O", ("export", "merge")),
    "feeds": ("--feeds", ("merge",)),
    "partial": ("--partial", ("merge",)),
    "max_item": ("--max-item", ("merge",)),
}
ALL_STATES = tuple(dict.fromkeys([*(state.value for state in BatchState), *STATES]))
#: Of --state, where not all of them have a meaning.
STATES_OF = {"failed": STATES, "retry": tuple(state for state in STATES if state != Outcome.FILTERED)}
#: Actions on one run.
OF_ONE_RUN = ("show", "log", "pause", "resume", "cancel", "retry", "export", "merge", "forget")


class Command(ScrapyCommand):
    """Only ``retry`` writes a ledger that nobody uses; a coordinator may be writing those that the others read."""

    requires_crawler_process = False
    default_settings = {"LOG_ENABLED": False}
    operator: Operator  # of the one run that the action is about

    def syntax(self) -> str:
        return (
            "[list|show N|log N|failed|check|pause|resume|cancel|retry|export -O FILE|merge [DIR...] -O FILE"
            "|forget RUN] [options]"
        )

    def short_desc(self) -> str:
        return "Show the batches of distributed crawls, check that no URL is lost, try again what failed, merge feeds"

    def long_desc(self) -> str:
        return (
            "list: the last run of each ledger and its batches. show: one batch with its attempts. log: what its jobs"
            " have logged, here and on nodes (-f: as it goes on). failed: URLs with their reasons. check: exit code 0"
            " only where the run is over, every diverted request is crawled, failed, filtered, dead, or not crawled as"
            " a limit or the spider has stopped the run, and no item is missing in a feed that counts. pause, resume:"
            " the crawl that runs now sends no more batches and asks for no more pages, until it is to. cancel: nor do"
            " its jobs go on. retry: what is dead, or failed before its callback (--callback: or in it), goes into new"
            " batches, of the crawl that runs or of the next one; a run that was stopped goes on. export: the items"
            " that came home, written once more. merge: the feeds that count, found in the folders DIR, or where"
            " workers write them, as one file. forget: a shared run; all of it leaves its Redis."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        _add_runs(parser)
        said = parser.add_mutually_exclusive_group()
        said.add_argument("--json", action="store_true", help="for programs")
        said.add_argument(
            "-f", dest="follow", action="store_true", help="log: of the last attempt, until its job ends, or Ctrl-C"
        )
        parser.add_argument("--strict", action="store_true", help="check: exit code 1 where any page or item is lost")
        parser.add_argument("--reason", metavar="PATTERN", help="failed, retry: only these, for example 'http 5*'")
        parser.add_argument("--state", choices=ALL_STATES, help="list, failed, retry: only these")
        parser.add_argument("--node", metavar="NAME", help="list: only batches whose last attempt was there")
        parser.add_argument(
            "--limit", type=at_least(int, 0), metavar="N", help="list: the last N batches (0: all; default: 50)"
        )
        parser.add_argument(
            "--callback",
            action="store_true",
            help="retry: also where the callback had begun, as it raised, say; items that it gave then come once more",
        )
        parser.add_argument(
            "--lost-items", action="store_true", help="retry: whose items came home, and are missing or damaged there"
        )
        parser.add_argument(
            "-O",
            dest="output",
            metavar="FILE",
            help="export, merge: into this file (export: FILE:FORMAT), in place of what it is",
        )
        parser.add_argument("--feeds", metavar="PATTERN", help="merge: only feeds with such URLs, for example '*.csv'")
        parser.add_argument("--partial", action="store_true", help="merge: what is there, even if something is missing")
        parser.add_argument("--force", action="store_true", help="forget: also a run that is not over")
        parser.add_argument(
            "--max-item", type=at_least(int, 1), metavar="MIB", help="merge: no item is larger (default: 4)"
        )

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.errors import ConfigError, LedgerError

        refuse_options(args)
        action, *words = args or ["list"]
        _check_usage(action, words, opts)
        try:
            with ExitStack() as stack:
                runs = self._runs(action, words, opts, stack)
                self.exitcode = getattr(self, f"_{action}")(runs, words, opts)
                sys.stdout.flush()
        except BrokenPipeError:  # "| head" has seen enough; nothing is to be written at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ConfigError, LedgerError) as error:
            print(escaped(str(error)), file=sys.stderr)
            self.exitcode = 2

    def _runs(self, action: str, words: list[str], opts: argparse.Namespace, stack: ExitStack) -> list[Run]:
        """The runs that are meant, in open ledgers: one for an action on one run. Raises ``LedgerError``."""
        from scrapy_distributed.commands.ledgers import Ledgers

        assert self.settings is not None
        ledgers = Ledgers(self.settings, stack, given=opts.ledger, spider=opts.spider)
        named = words[0] if action == "forget" else opts.named
        if action not in OF_ONE_RUN:
            return ledgers.runs(every=opts.all_runs, named=named)
        reader, run = ledgers.one_run(action, named)
        self.operator = ledgers.operator_of(reader, run, named=named is not None)
        return [(reader, run)]

    # Each action returns the exit code.

    def _list(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        from scrapy_distributed.commands.batch_list import SHOWN, Shown, list_batches

        limit = (0 if opts.json else SHOWN) if opts.limit is None else opts.limit
        shown = Shown(state=opts.state, node=opts.node, limit=limit)
        return list_batches(runs, shown, as_json=opts.json)

    def _show(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        from scrapy_distributed.errors import LedgerError

        ((ledger, run),) = runs
        number = int(words[0])
        batch = next(ledger.each_batch(run.id, number, number), None)
        if batch is None:
            raise LedgerError(f"{ledger.place}: found no batch {number} in run {run.name}; list shows those it has")
        children = ledger.children(run.id, number)
        attempts = self.operator.attempts(number)
        outcomes = ledger.outcomes(run.id, batch=number)
        if opts.json:
            more = {"attempts": [vars(attempt) for attempt in attempts], "outcomes": [vars(one) for one in outcomes]}
            print(json.dumps({"run": run.name, **vars(batch), "children": children, **more}))
            return 0
        print(f"{title(ledger, run)}\n{batch_lines(batch, children)}")
        if batch.avoid:
            print(f"    its requests failed on {escaped(batch.avoid)} before")
        for attempt in attempts:
            print(attempt_lines(attempt))
        for outcome in outcomes:
            print(f"  {outcome_line(outcome)}")
        return 0

    def _log(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        return self.operator.log(words[0], follow=opts.follow, as_json=opts.json)

    def _failed(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        wanted = _wanted(opts)
        for ledger, run in runs:
            left = (one for one in ledger.not_crawled(run) if wanted(one.state, one.reason))
            for outcome in chain(ledger.outcomes(run.id, wanted=wanted), left):
                print(json.dumps({"run": run.name, **vars(outcome)}) if opts.json else outcome_line(outcome))
        sys.stdout.flush()
        for ledger, run in runs:
            raised = [one for one in ledger.raised(run.id) if wanted(Outcome.FAILED, one.reason)]
            for line in raised_lines(raised):  # beside the list, which is for programs as well
                print(escaped(line), file=sys.stderr)
        return 0

    def _check(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        accounts = [Account(ledger, run) for ledger, run in runs]
        settled = bool(accounts) and all(account.verdict == "settled" for account in accounts)
        good = settled and all(account.good(strict=opts.strict) for account in accounts)
        if opts.json:
            print(json.dumps({"settled": settled, "good": good, "runs": [account.as_dict() for account in accounts]}))
            return 0 if good else 1
        for account in accounts:
            print("\n".join([title(account.ledger, account.run), *(f"  {line}" for line in account.lines())]))
        if not runs:
            print("no runs")
        return 0 if good else 1

    def _pause(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        return self.operator.wish("pause", as_json=opts.json)

    def _resume(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        return self.operator.wish("resume", as_json=opts.json)

    def _cancel(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        return self.operator.wish("cancel", as_json=opts.json)

    def _retry(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        if opts.lost_items:
            return self.operator.retry_lost_items(as_json=opts.json)
        return self.operator.retry(_wanted(opts), as_json=opts.json)

    def _forget(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        return self.operator.forget(force=opts.force, as_json=opts.json)

    def _export(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        from scrapy_distributed.commands.batch_export import export

        ((ledger, run),) = runs
        assert self.settings is not None
        verdict = verdict_of(run, ledger.balance(run.id))
        items, fault = export(self.operator.at_home(), run, opts.output, self.settings)
        if opts.json:
            print(json.dumps({"run": run.name, "items": items, "whole": not fault, "fault": fault, "verdict": verdict}))
        else:
            after = "" if verdict == "settled" else f", as far as the run is: it is {verdict}"
            print(f"{title(ledger, run)}\n  {counted(items, 'item')} in {escaped(opts.output)}{after}")
            if fault:
                print(f"  NOT COMPLETE: {escaped(fault)}")
        return 1 if fault else 0

    def _merge(self, runs: list[Run], words: list[str], opts: argparse.Namespace) -> int:
        from scrapy_distributed.results.folders import folders_of
        from scrapy_distributed.results.formats import MAX_ITEM_BYTES
        from scrapy_distributed.results.merge import merge

        ((ledger, run),) = runs
        folders, elsewhere = ([Path(word) for word in words], []) if words else folders_of(ledger.feed_urls(run.id))
        balance = ledger.balance(run.id)  # before the feeds: once it is settled, no more are accepted
        verdict = verdict_of(run, balance)
        merged = merge(
            ledger.accepted(run.id),
            folders,
            Path(opts.output),
            pattern=opts.feeds or "*",
            unsettled="" if verdict == "settled" else f"the run is {verdict}: {balance}",
            partial=opts.partial,
            max_item_bytes=opts.max_item * 1024 * 1024 if opts.max_item else MAX_ITEM_BYTES,
        )
        if opts.json:
            faults = [{"kind": fault.kind.value, "message": fault.message} for fault in merged.faults]
            print(json.dumps({"run": run.name, **vars(merged), "faults": faults}))
        else:
            if not words:
                print(f"looked for feeds in {escaped(', '.join(map(str, folders)) or 'no folder')}", file=sys.stderr)
            for url in elsewhere:
                print(f"not looked for, as they are not here: feeds in {escaped(url)}", file=sys.stderr)
            print_merged(merged, opts.output)
        return 1 if merged.faults else 0


def _add_runs(parser: argparse.ArgumentParser) -> None:
    """The options that say which runs are meant."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--ledger",
        metavar="FILE",
        help="or redis://HOST:6379/0 of shared runs; default: the Redis of DISTRIBUTED_TARGET_HOSTS, else"
        " DISTRIBUTED_LEDGER, else every ledger of the project",
    )
    place.add_argument("--spider", metavar="NAME", help="the ledger of this spider")
    runs = parser.add_mutually_exclusive_group()
    runs.add_argument("--all-runs", action="store_true", help="not only the last run of a ledger")
    runs.add_argument("--run", dest="named", metavar="NAME", help="this run, in place of the last one")


def _wanted(opts: argparse.Namespace) -> Wanted:
    from scrapy_distributed.ledger.wanted import Wanted

    return Wanted(state=opts.state, reason=opts.reason or "*", begun=opts.callback)


def _check_usage(action: str, words: list[str], opts: argparse.Namespace) -> None:
    """Raise ``UsageError`` for words and options that are not of this action."""
    wrong = ""
    if action not in ACTIONS or (words and action not in WORDS):
        wrong = f"found {' '.join([action, *words])!r}, expected one of {', '.join(ACTIONS)}"
    elif action in PATTERNS and not (len(words) == 1 and re.fullmatch(PATTERNS[action], words[0])):
        found = f"found {' '.join(words)!r}, " if words else ""
        wrong = f"{action}: {found}expected {WORDS[action]}"
    elif action in OPTIONS["output"][1] and not opts.output:
        wrong = f"{action}: expected -O FILE, the file to be written"
    elif opts.state and opts.state not in STATES_OF.get(action, ALL_STATES):
        again = ": what was filtered would be filtered again" if opts.state == Outcome.FILTERED else ""
        wrong = f"{action}: found --state {opts.state}, expected one of {', '.join(STATES_OF[action])}{again}"
    elif opts.lost_items and (opts.state or opts.reason or opts.callback):
        wrong = "--lost-items: found another choice as well, expected one of them: what is lost is all crawled again"
    for name, (option, actions) in OPTIONS.items():
        given = getattr(opts, name)
        if not wrong and given is not None and given is not False and action not in actions:
            wrong = f"{option} is an option of {', '.join(actions)}, found {action}"
    if wrong:
        raise UsageError(wrong, print_help=False)
