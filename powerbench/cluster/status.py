"""How far runs are: done, rate and estimated end of every shard, as its last writer recorded.

Everything is read from the run folders, so that it is the same for jobs on other machines: neither a
scheduler nor a process elsewhere is asked.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from powerbench.cluster.outcome import Kind, State, duration, writer_state
from powerbench.errors import UserError
from powerbench.store import Run, find_runs, records
from powerbench.store.owner import COMPLETE, LEASE_TIMEOUT, Writer
from powerbench.store.run_folder import SAMPLES
from powerbench.store.shard import WHOLE, Shard


@dataclass(frozen=True)
class StatusRow:
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


def lease_timeout(settings: Mapping[str, Any]) -> float:
    """How long a writer of a run so configured may be silent, in seconds."""
    found = settings.get("lease_timeout")
    return float(found) if isinstance(found, int | float) else LEASE_TIMEOUT


# -- rows -----------------------------------------------------------------------------------------


def rows(run: Run, now: float) -> list[StatusRow]:
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
            found[part] = _row(
                run, part, asked.get(part), writer_state(writer, silence, now), writer
            )
    whole = [row for part, row in found.items() if part.of == last.of]
    return [*found.values(), *([_sum(whole)] if len(whole) > 1 else [])]


def _row(run: Run, shard: Shard, asked: int | None, how: State, writer: Writer) -> StatusRow:
    done = writer.progress.done
    if writer.ended is None:  # its last heartbeat may be old, or it never had one
        done = max(done, sum(1 for _ in records.lines(run.samples_file(shard))))
    if how.words == COMPLETE and asked is not None and asked > writer.progress.total:
        how = State(Kind.ENDED, "was complete; more is asked for by now")
    at_work = how.kind is Kind.AT_WORK
    made = writer.progress.made_here
    rate = made / writer.seconds if made and writer.seconds else None
    return StatusRow(
        run=str(run.path),
        shard=str(shard),
        done=done,
        total=max(writer.progress.total, asked or 0),
        state=how,
        per_minute=60 * rate if rate else None,
        tokens_per_second=writer.progress.decoded / writer.seconds if rate else None,
        left=(writer.progress.total - done) / rate if at_work and rate else None,
        running=writer.progress.running if at_work else 0,
        writer=writer,
    )


def _unwritten(run: Run, shard: Shard, asked: int | None) -> StatusRow:
    """A shard without a writer: not begun, or copied without writers/."""
    file = run.samples_file(shard)
    done = sum(1 for _ in records.lines(file))
    words = "not started"
    if file.exists():
        words = COMPLETE if done == asked else "not known: its writers/ is not here"
    return StatusRow(str(run.path), str(shard), done, asked, State(Kind.NO_WRITER, words))


def _sum(shards: Sequence[StatusRow]) -> StatusRow:
    totals = [row.total for row in shards]
    at_work = [row for row in shards if row.state.kind is Kind.AT_WORK]
    others = [row for row in shards if row not in at_work and row.done != row.total]
    ends = [row.left for row in at_work]
    words = ", ".join(f"{n} {what}" for what, n in Counter(map(_short, shards)).items())
    return StatusRow(
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


def _short(row: StatusRow) -> str:
    own_words = row.state.kind in (Kind.ENDED, Kind.NO_WRITER)
    return row.state.words.partition(":")[0] if own_words else str(row.state.kind)


def settings_of(run: Run) -> Mapping[str, Any]:
    """The run's configuration; nothing of one that is missing or damaged, which `verify` is for."""
    try:
        return run.config
    except UserError:
        return {}


def _asked(run: Run, parts: Sequence[Shard], settings: Mapping[str, Any]) -> dict[Shard, int]:
    """How many samples of each part the configuration asks for; empty where that cannot be read."""
    problems, replicates = settings.get("limit"), settings.get("replicates")
    if _is_deterministic(run):
        replicates = 1
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


def _is_deterministic(run: Run) -> bool:
    """Whether its sampler draws nothing, and so makes one response per problem."""
    try:
        return bool(run.manifest.get("sampler", {}).get("deterministic"))
    except UserError:
        return False


# -- how it is shown ------------------------------------------------------------------------------


def show(paths: Sequence[Path], console: Console) -> None:
    """Show the state of some runs once: a table on a terminal, a line for every shard elsewhere."""
    if console.is_terminal:
        console.print(_table(_all(paths)))
        return
    for row in _all(paths):
        console.print(line(row), highlight=False, markup=False, soft_wrap=True)


def show_again(paths: Sequence[Path], console: Console, every: float) -> None:
    """Show the state of some runs every `every` seconds, until Ctrl-C."""
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
    """The state of some runs; or that there are none yet, as before the first job of a sweep has begun."""
    try:
        return _table(_all(paths)) if table else "\n".join(map(line, _all(paths)))
    except UserError as error:
        return f"{error}; waiting for one"


def as_json(paths: Sequence[Path]) -> str:
    """The state of some runs for a program: a list with one object for every shard."""
    return json.dumps([asdict(row) for row in _all(paths)], indent=2)


def line(row: StatusRow) -> str:
    """One shard in one plain line."""
    words = [f"{_count(row)} samples", row.state.words, *_rates(row), _left(row)]
    words += [f"{row.running} chains running"] if row.running else []
    shard = f" {row.shard}" if row.shard != str(WHOLE) else ""
    return f"{row.run}{shard}: {', '.join(word for word in words if word)}{_log(row)}"


def _table(shown: Iterator[StatusRow]) -> Table:
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


def _all(paths: Sequence[Path]) -> Iterator[StatusRow]:
    for run in find_runs(paths):
        yield from rows(run, time.time())


def _count(row: StatusRow) -> str:
    return f"{row.done:,}/{'?' if row.total is None else f'{row.total:,}'}"


def _rates(row: StatusRow) -> list[str]:
    if row.per_minute is None or row.tokens_per_second is None:
        return []
    few = row.per_minute < 100
    rate = f"{row.per_minute:.3g}" if few else f"{row.per_minute:,.0f}"
    return [f"{rate} responses/min", f"{row.tokens_per_second:,.0f} tokens/s"]


def _left(row: StatusRow) -> str:
    """Time left, and when that will be by the local clock."""
    if not row.left:
        return ""
    now = datetime.now()
    end = datetime.fromtimestamp(now.timestamp() + row.left)
    day = "%H:%M" if end.date() == now.date() else "%d %b %H:%M"
    return f"{duration(row.left)} left ({end:{day}})"


def _log(row: StatusRow) -> str:
    """Where to read more about a writer that failed."""
    if row.writer is None or not row.writer.log or row.state.kind is Kind.AT_WORK:
        return ""
    return "" if row.state.words == COMPLETE else f" (log: {row.writer.log})"
