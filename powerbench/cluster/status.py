"""How far runs are: done, rate and estimated end of every shard, as its last writer told.

Everything is read from the run folders, so that it is the same for jobs on other machines; nobody is
asked, no scheduler and no process elsewhere.
"""

import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from powerbench.errors import UserError
from powerbench.store import Run, find_runs, records
from powerbench.store.owner import COMPLETE, LEASE_TIMEOUT, Writer
from powerbench.store.run_folder import SAMPLES
from powerbench.store.shard import WHOLE, Shard

SILENT = 1.5
"""A writer on another machine that has been silent for so many times the run's lease timeout is lost."""


class Kind(StrEnum):
    """What a shard's last writer does, in one word."""

    AT_WORK = "at work"
    ENDED = "ended"
    """It has said how it ended."""
    KILLED = "killed"
    SILENT = "silent"
    UNCLEAR = "unclear"
    """Its file is from the future, so that clocks cannot tell."""
    NO_WRITER = "no writer"


@dataclass(frozen=True)
class State:
    """What a writer does, or how it ended."""

    kind: Kind
    words: str


@dataclass(frozen=True)
class Row:
    """One shard of a run; or, where `shard` is "all", a run of several shards."""

    run: str
    shard: str
    done: int
    """Samples that are finished, of all that the shard holds."""
    total: int | None
    """Samples that were asked for; None where that is not known."""
    state: State
    per_minute: float | None = None
    """Responses a minute, since the writer's start."""
    tokens_per_second: float | None = None
    """Tokens decoded a second, since the writer's start."""
    left: float | None = None
    """Estimated seconds until the end, of a writer at work."""
    running: int = 0
    """Chains at work."""
    writer: Writer | None = None


def state(writer: Writer, lease_timeout: float, now: float) -> State:
    """What a writer does. lease_timeout: as the run was configured; now: seconds since 1970."""
    if writer.ended is not None:
        return State(Kind.ENDED, writer.ended)
    alive, where = writer.alive(), ", ".join(x for x in (writer.host, writer.job) if x)
    age = now - writer.last_heartbeat
    if alive is False:
        here = writer.host == platform.node()
        return State(
            Kind.KILLED,
            f"was killed (pid {writer.pid} on {'this machine' if here else writer.host})",
        )
    if alive is None and age < -lease_timeout:
        return State(
            Kind.UNCLEAR,
            f"on {where}: last heard of {duration(-age)} from now, for clocks differ: at work or lost",
        )
    if alive is None and age > SILENT * lease_timeout:
        return State(Kind.SILENT, f"silent for {duration(age)} on {where}: lost, or cut off")
    return State(Kind.AT_WORK, f"at work on {where}")


def lease_timeout(settings: Mapping[str, Any]) -> float:
    """How long a writer of a run so configured may be silent, in seconds."""
    found = settings.get("lease_timeout")
    return float(found) if isinstance(found, int | float) else LEASE_TIMEOUT


def duration(seconds: float) -> str:
    """A stretch of time in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- what there is --------------------------------------------------------------------------------


def rows(run: Run, now: float) -> list[Row]:
    """Every shard that has been worked on, all of the partition that was last, and that one's sum."""
    writers = {Shard.from_suffix(w.name.removeprefix(SAMPLES)): w for w in run.writers()}
    known = {*writers, *run.shards()} or {WHOLE}
    last = max(writers, key=lambda shard: writers[shard].started, default=max(known))
    parts = sorted({*known, *(Shard(n, last.of) for n in range(1, last.of + 1))})
    settings = settings_of(run)
    asked = _asked(run, parts, settings)
    silence = lease_timeout(settings)
    found = {}
    for part in parts:
        writer = writers.get(part)
        if writer is None:
            found[part] = _unwritten(run, part, asked.get(part))
        else:
            found[part] = _row(run, part, asked.get(part), state(writer, silence, now), writer)
    whole = [row for part, row in found.items() if part.of == last.of]
    return [*found.values(), *([_sum(whole)] if len(whole) > 1 else [])]


def _row(run: Run, shard: Shard, asked: int | None, how: State, writer: Writer) -> Row:
    done = writer.done
    if writer.ended is None:  # its last heartbeat may be old, or it never came to one
        done = max(done, sum(1 for _ in records.lines(run.samples_file(shard))))
    if how.words == COMPLETE and asked is not None and asked > writer.total:
        how = State(Kind.ENDED, "was complete; more is asked for by now")
    at_work = how.kind is Kind.AT_WORK
    rate = writer.made_here / writer.seconds if writer.made_here and writer.seconds else None
    return Row(
        run=str(run.path),
        shard=str(shard),
        done=done,
        total=max(writer.total, asked or 0),
        state=how,
        per_minute=60 * rate if rate else None,
        tokens_per_second=writer.decoded / writer.seconds if rate else None,
        left=(writer.total - done) / rate if at_work and rate else None,
        running=writer.running if at_work else 0,
        writer=writer,
    )


def _unwritten(run: Run, shard: Shard, asked: int | None) -> Row:
    """Of a shard without a writer: not begun, or copied without writers/."""
    file = run.samples_file(shard)
    done = sum(1 for _ in records.lines(file))
    words = "not started"
    if file.exists():
        words = COMPLETE if done == asked else "not known: its writers/ is not here"
    return Row(str(run.path), str(shard), done, asked, State(Kind.NO_WRITER, words))


def _sum(shards: Sequence[Row]) -> Row:
    totals = [row.total for row in shards]
    at_work = [row for row in shards if row.state.kind is Kind.AT_WORK]
    others = [row for row in shards if row not in at_work and row.done != row.total]
    ends = [row.left for row in at_work]
    words = ", ".join(f"{n} {what}" for what, n in Counter(map(_short, shards)).items())
    return Row(
        run=shards[0].run,
        shard="all",
        done=sum(row.done for row in shards),
        total=None if None in totals else sum(x for x in totals if x is not None),
        state=State(Kind.AT_WORK if at_work else Kind.ENDED, words),
        per_minute=sum(row.per_minute or 0 for row in at_work) or None,
        tokens_per_second=sum(row.tokens_per_second or 0 for row in at_work) or None,
        left=None if others or None in ends else max((x for x in ends if x), default=None),
        running=sum(row.running for row in at_work),
    )


def _short(row: Row) -> str:
    own_words = row.state.kind in (Kind.ENDED, Kind.NO_WRITER)
    return row.state.words.partition(":")[0] if own_words else str(row.state.kind)


def settings_of(run: Run) -> Mapping[str, Any]:
    """The run's configuration; nothing of one that is missing or damaged, which `verify` is for."""
    try:
        return run.config
    except UserError:
        return {}


def _asked(run: Run, parts: Sequence[Shard], settings: Mapping[str, Any]) -> dict[Shard, int]:
    """How many samples of each part the configuration asks for; nothing where that cannot be read."""
    problems, replicates = settings.get("limit"), settings.get("replicates")
    there = sum(1 for _ in records.lines(run.path / "problems.jsonl"))
    if not isinstance(replicates, int) or not there:
        return {}
    problems = min(problems, there) if isinstance(problems, int) else there
    asked = {}
    for part in parts:  # `holds` is the same for all numbers of one class
        rows = Counter(i % part.of for i in range(problems))
        columns = Counter(r % part.of for r in range(replicates))
        asked[part] = sum(rows[i] * columns[r] for i in rows for r in columns if part.holds(i, r))
    return asked


# -- how it is shown ------------------------------------------------------------------------------


def show(paths: Sequence[Path], console: Console) -> None:
    """Show the state of some runs once: a table on a terminal, a line for every shard elsewhere."""
    if console.is_terminal:
        console.print(_table(_all(paths)))
        return
    for row in _all(paths):
        console.print(line(row), highlight=False, markup=False, soft_wrap=True)


def watch(paths: Sequence[Path], console: Console, every: float) -> None:
    """Show the state of some runs again and again, every so many seconds, until Ctrl-C."""
    try:
        if not console.is_terminal:
            while True:
                console.print(_look(paths), highlight=False, markup=False, soft_wrap=True)
                time.sleep(every)
        with Live(_look(paths), console=console, auto_refresh=False) as live:
            while True:
                live.update(_look(paths, table=True), refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        return


def _look(paths: Sequence[Path], table: bool = False) -> Table | str:
    """What there is; or that there is nothing yet, such as before the first job of a sweep has begun."""
    try:
        return _table(_all(paths)) if table else "\n".join(map(line, _all(paths)))
    except UserError as error:
        return f"{error}; waiting for one"


def as_json(paths: Sequence[Path]) -> str:
    """The state of some runs for a program: a list with one object for every shard."""
    return json.dumps([asdict(row) for row in _all(paths)], indent=2)


def line(row: Row) -> str:
    """One shard in one plain line."""
    words = [f"{_count(row)} samples", row.state.words, *_rates(row), _left(row)]
    words += [f"{row.running} chains running"] if row.running else []
    shard = f" {row.shard}" if row.shard != str(WHOLE) else ""
    return f"{row.run}{shard}: {', '.join(word for word in words if word)}{_log(row)}"


def _table(shown: Iterator[Row]) -> Table:
    table = Table(box=SIMPLE)
    for heading in ("run", "shard"):
        table.add_column(heading, overflow="fold")
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for heading in ("rate", "left", "chains"):
        table.add_column(heading, justify="right")
    above = ""
    for row in shown:
        name, above = "" if row.run == above else row.run, row.run
        cells = [name, row.shard, _count(row), row.state.words + _log(row)]
        cells += ["\n".join(_rates(row)), _left(row), str(row.running or "")]
        table.add_row(*map(escape, cells))
    return table


def _all(paths: Sequence[Path]) -> Iterator[Row]:
    for run in find_runs(paths):
        yield from rows(run, time.time())


def _count(row: Row) -> str:
    return f"{row.done:,}/{'?' if row.total is None else f'{row.total:,}'}"


def _rates(row: Row) -> list[str]:
    if row.per_minute is None or row.tokens_per_second is None:
        return []
    few = row.per_minute < 100
    rate = f"{row.per_minute:.3g}" if few else f"{row.per_minute:,.0f}"
    return [f"{rate} responses/min", f"{row.tokens_per_second:,.0f} tokens/s"]


def _left(row: Row) -> str:
    """Time left, and when that will be by the local clock."""
    if not row.left:
        return ""
    now = datetime.now()
    end = datetime.fromtimestamp(now.timestamp() + row.left)
    day = "%H:%M" if end.date() == now.date() else "%d %b %H:%M"
    return f"{duration(row.left)} left ({end:{day}})"


def _log(row: Row) -> str:
    """Where to read more, of a writer that came to no good end."""
    if row.writer is None or not row.writer.log or row.state.kind is Kind.AT_WORK:
        return ""
    return "" if row.state.words == COMPLETE else f" (log: {row.writer.log})"
