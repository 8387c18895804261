"""What a command shows: the progress, live on a terminal and in plain lines elsewhere; and tables."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from powerbench.console import console
from powerbench.report.summary import Summary
from powerbench.report.tables.results import results
from powerbench.report.tables.table import Table as TableOfValues
from powerbench.types import Progress

logger = logging.getLogger(__name__)

LINE_INTERVAL = 15.0
"""Seconds between plain lines."""

LONGEST_WHOLE = 40
"""Names up to this long are not broken: numbers take more lines instead."""
TERMINAL_COLUMNS = (
    "value [95%]",
    "LC win rate [95%]",
    "undecided",
    "n",
    "tokens",
    "log p / token",
    "passes / token",
    "acceptance",
    "refused",
    "seconds",
    "dollars",
)
"""What fits a terminal."""


@dataclass
class ProgressDisplay:
    """Shows how many responses are done, the rate, the acceptance and the time left."""

    title: str
    progress: Progress
    """Counted elsewhere."""
    concurrent: Callable[[], str] = str
    """Describes work that goes on at the same time; returns an empty string for nothing."""
    _began: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)
    _bar: Bar | None = None

    def metrics(self) -> dict[str, float]:
        """The progress as numbers: responses, tokens decoded, tokens/s, acceptance."""
        progress = self.progress
        numbers: dict[str, float] = {"responses": progress.done}
        if progress.decoded:
            elapsed = max(time.monotonic() - self._began, 1e-9)
            numbers["tokens decoded"] = progress.decoded
            numbers["tokens/s"] = progress.decoded / elapsed
        if progress.proposals:
            numbers["acceptance"] = progress.accepted / progress.proposals
        return numbers

    def update(self) -> None:
        """Show the progress: on a terminal now, elsewhere every LINE_INTERVAL seconds."""
        now, progress = time.monotonic(), self.progress
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=progress.done, status=self._status())
        elif now - self._shown >= LINE_INTERVAL and progress.done < progress.total:
            self._shown = now
            logger.info(self.line())

    def line(self) -> str:
        """The progress in one plain line."""
        progress, left = self.progress, ""
        if progress.made_here and progress.done < progress.total:
            each = (time.monotonic() - self._began) / progress.made_here
            left = f"{each * (progress.total - progress.done):.0f} s left"
        words = [f"{progress.done}/{progress.total} responses", self._status(), left]
        return f"{self.title}: {', '.join(word for word in words if word)}"

    def _status(self) -> str:
        numbers = self.metrics()
        words = [f"{numbers['tokens/s']:.0f} tokens/s"] if "tokens/s" in numbers else []
        words += [f"acceptance {numbers['acceptance']:.2f}"] if "acceptance" in numbers else []
        return ", ".join(word for word in (*words, self.concurrent()) if word)


@contextmanager
def progress_display(
    title: str, progress: Progress, concurrent: Callable[[], str] = str
) -> Iterator[ProgressDisplay]:
    """A display of the progress: live where the console is a terminal, plain lines elsewhere."""
    display = ProgressDisplay(title, progress, concurrent)
    if not console().is_terminal:
        yield display
        logger.info(display.line())
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console()) as display._bar:
        display._bar.add_task(title, total=progress.total, completed=progress.done, status="")
        yield display


def print_table(summaries: Sequence[Summary]) -> None:
    """The table of runs, one block for each task and model: the report has more columns."""
    print_any(results(summaries), TERMINAL_COLUMNS)


def print_any(found: TableOfValues, only: Collection[str] = ()) -> None:
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
            name = i < found.names
            short = max((len(row[i]) for row in group.rows), default=0) <= LONGEST_WHOLE
            table.add_column(
                two_lines,
                justify="left" if name else "right",
                overflow="fold",
                no_wrap=name and short,
            )
        for row in group.rows:
            table.add_row(*(row[i] for i in shown))
        console().print(table)
