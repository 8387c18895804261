"""What a person sees while a run works: a live line on a terminal, plain lines elsewhere."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from powerbench.chains.runner import Meter
from powerbench.report.summary import Summary
from powerbench.report.tables.results import results
from powerbench.report.tables.table import Table as TableOfValues

logger = logging.getLogger(__name__)

PLAIN_EVERY = 15.0
"""Seconds between plain lines."""

TERMINAL_COLUMNS = (
    "value [95%]",
    "LC win rate [95%]",
    "undecided",
    "n",
    "tokens",
    "log p / token",
    "decoded / token",
    "acceptance",
    "seconds",
)
"""What fits a terminal."""


@dataclass
class Board:
    """Shows how many responses are done, the rate, the acceptance and the time left."""

    console: Console
    title: str
    total: int
    meter: Meter | None = None
    """What the engine does; None where no engine is at work."""
    beside: Callable[[], str] = str
    """Tells of other work that goes on; an empty string where there is nothing to tell."""
    done: int = 0
    _began: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)
    _bar: Progress | None = None

    def metrics(self) -> dict[str, float]:
        """The state as numbers: responses, tokens decoded, tokens/s, acceptance."""
        state: dict[str, float] = {"responses": self.done}
        if self.meter is not None:
            elapsed = max(time.monotonic() - self._began, 1e-9)
            state["tokens decoded"] = self.meter.decoded
            state["tokens/s"] = self.meter.decoded / elapsed
            if self.meter.proposals:
                state["acceptance"] = self.meter.accepted / self.meter.proposals
        return state

    def update(self, finished: int = 0) -> None:
        """Count finished responses, and show the state now and then."""
        self.done += finished
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, status=self._status())
        elif now - self._shown >= PLAIN_EVERY and self.done < self.total:
            self._shown = now
            logger.info(self.line())

    def line(self) -> str:
        """The state in one plain line."""
        elapsed = time.monotonic() - self._began
        ahead = self.total - self.done
        left = f"{elapsed / self.done * ahead:.0f} s left" if self.done and ahead else ""
        words = [f"{self.done}/{self.total} responses", self._status(), left]
        return f"{self.title}: {', '.join(word for word in words if word)}"

    def _status(self) -> str:
        state = self.metrics()
        words = [f"{state['tokens/s']:.0f} tokens/s"] if "tokens/s" in state else []
        words += [f"acceptance {state['acceptance']:.2f}"] if "acceptance" in state else []
        return ", ".join(word for word in (*words, self.beside()) if word)


@contextmanager
def board(
    console: Console,
    title: str,
    total: int,
    meter: Meter | None = None,
    beside: Callable[[], str] = str,
) -> Iterator[Board]:
    """A board for one run, live where the console is a terminal."""
    shown = Board(console, title, total, meter, beside)
    if not console.is_terminal:
        yield shown
        logger.info(shown.line())
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown._bar:
        shown._bar.add_task(title, total=total, status="")
        yield shown


def print_table(console: Console, summaries: Sequence[Summary]) -> None:
    """The table of runs, one block for each task and model: the report has more columns."""
    print_any(console, results(summaries), TERMINAL_COLUMNS)


def print_any(console: Console, found: TableOfValues, only: Collection[str] = ()) -> None:
    """A table, one block for each of its groups. only: the columns to show beside the names; all, if empty."""
    heads = found.heads()
    for group in found.groups():
        table = Table(title=" · ".join(group.names[:2]), title_justify="left", box=SIMPLE)
        shown = [
            i
            for i in found.used([group])
            if i < found.names or not only or heads[i].heading in only
        ]
        for i in shown:
            two_lines = heads[i].heading.replace(" (", "\n(")
            table.add_column(
                two_lines, justify="left" if i < found.names else "right", overflow="fold"
            )
        for row in group.rows:
            table.add_row(*(row[i] for i in shown))
        console.print(table)
