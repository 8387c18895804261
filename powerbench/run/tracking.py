"""Trackers: views of a run, sent elsewhere. The run folder stays the record; no tracker fails a run."""

import netrc
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from powerbench.errors import require
from powerbench.report.samples import confidence, logp_per_token
from powerbench.report.selection import select
from powerbench.report.summary import Results, Summary
from powerbench.report.tables import lengths
from powerbench.report.tables.results import cost
from powerbench.report.tables.results import results as results_table
from powerbench.report.tables.table import Table, records
from powerbench.store import Run
from powerbench.store.shard import WHOLE, Shard

MODES = ("auto", "online", "offline")
COLUMNS = [
    "problem",
    "replicate",
    "prompt",
    "response",
    "extracted",
    "value",
    "reason",
    "tokens",
    "log-likelihood",
    "decoded",
    "passes",
]
"""Of the table of responses."""


class Tracker(Protocol):
    """Receives a run's configuration, live metrics, and its result."""

    def start(self, run: Run, group: str, shard: Shard) -> None:
        """group: the experiment that the run belongs to; shard: the part of it that is made here."""
        ...

    def log(self, metrics: Mapping[str, float]) -> None: ...

    def finish(self, results: Results) -> None:
        """results: of all shards that there are, finished or not."""
        ...


@dataclass(frozen=True)
class NoTracker:
    """Keeps nothing."""

    def start(self, run: Run, group: str, shard: Shard) -> None:
        pass

    def log(self, metrics: Mapping[str, float]) -> None:
        pass

    def finish(self, results: Results) -> None:
        pass


@dataclass
class WandbTracker:
    """Weights & Biases: configuration, live metrics, summary, responses, pass@k and histograms.

    Every shard is a W&B run of its own, of its own responses only. The shards of one run are a group,
    named after the run, so that W&B aggregates them; whole runs are grouped by experiment.

    mode: "auto" is online where a key is configured (WANDB_API_KEY or ~/.netrc), else offline.
        Offline runs lie in <run folder>/wandb; `wandb sync` sends them later.
    """

    project: str = "powerbench"
    mode: str = "auto"
    _run: Any = field(default=None, repr=False)
    _shard: Shard = field(default=WHOLE, repr=False)

    def __post_init__(self) -> None:
        require(
            self.mode in MODES, f"tracker.mode must be one of {', '.join(MODES)}, got {self.mode!r}"
        )

    def start(self, run: Run, group: str, shard: Shard) -> None:
        self._shard = shard
        self._guard(lambda: self._start(run, group))

    def log(self, metrics: Mapping[str, float]) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.log(dict(metrics)))

    def finish(self, results: Results) -> None:
        if self._run is not None:
            self._guard(lambda: self._finish(results.part(self._shard)))

    def _guard(self, action: Callable[[], None]) -> None:
        """Run a tracker call; on failure say so once, and go on without a tracker."""
        try:
            action()
        except Exception as error:
            self._run = None
            print(
                f"W&B: {type(error).__name__}: {error}; the run goes on without it", file=sys.stderr
            )

    def _start(self, run: Run, group: str) -> None:
        import wandb

        name, shard = "/".join(run.path.parts[-3:]), self._shard
        asked = {"experiment": group, "shard": str(shard)}
        self._run = wandb.init(
            project=self.project,
            group=group if shard == WHOLE else name,
            job_type=run.path.parts[-3],
            name=name + shard.suffix,
            config={"settings": run.config, "manifest": run.manifest} | asked,
            dir=str(run.path),
            id=run.manifest["digest"][:16] + shard.suffix,
            resume="allow",
            mode=_mode(self.mode),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off"),
        )

    def _finish(self, results: Results) -> None:
        import wandb

        summary = results.summary
        samples = results.samples.values()
        plain = asdict(summary) | {"pass_at_k": None}
        self._run.summary.update({k: v for k, v in plain.items() if v is not None})
        for point in summary.pass_at_k:
            low, high = point.interval
            self._run.log(
                {"k": point.k, "pass@k": point.mean, "pass@k, low": low, "pass@k, high": high}
            )
        self._run.log(
            {
                "log-likelihood per token": wandb.Histogram(logp_per_token(samples)),
                "confidence": wandb.Histogram(confidence(samples)),
                "responses": _table(results, wandb.Table),
                **{table.name: _plain(table, wandb.Table) for table in _tables(summary)},
            }
        )
        if summary.pass_at_k:
            self._run.log(
                {
                    "pass@k curve": wandb.plot.line_series(
                        xs=[point.k for point in summary.pass_at_k],
                        ys=[[point.mean for point in summary.pass_at_k]],
                        keys=[summary.sampler],
                        title=f"pass@k, {summary.task}, {summary.model}",
                        xname="k",
                    )
                }
            )
        self._run.finish()
        self._run = None


def _tables(summary: Summary) -> list[Table]:
    """The report's tables of one run."""
    tables = (results_table([summary]), cost([summary]), lengths.table([summary]))
    return [table for table in tables if table.rows]


def _plain(table: Table, make: Callable[..., Any]) -> Any:
    rows = records(table)
    heads = list(dict.fromkeys(head for row in rows for head in row))
    return make(columns=heads, data=[[row.get(head) for head in heads] for row in rows])


def _mode(asked: str) -> str:
    """The mode asked for, here or by WANDB_MODE; but without a key offline: never a prompt for one."""
    mode = os.environ.get("WANDB_MODE", "online") if asked == "auto" else asked
    return "offline" if mode == "online" and not _has_key() else mode


def _has_key() -> bool:
    """W&B's own two ways to give a key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host in netrc.netrc(Path("~/.netrc").expanduser()).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _table(results: Results, table: Callable[..., Any]) -> Any:
    """Reads the texts that it shows; says so where the run has more than the table holds."""
    selection = select([results])
    if selection.shown < selection.of:
        print(
            f"W&B: its table of responses holds {selection.shown:,} of {selection.of:,}, chosen evenly over "
            f"problems; `powerbench export` writes all",
            file=sys.stderr,
        )
    (keys,) = selection.runs
    rows = {}
    for key, sample in results.texts(keys).items():
        score = results.scores.get(key)
        scored = [None] * 3 if score is None else [score.answer, score.value, score.reason]
        prompt = results.problems[key.problem].prompt.text
        cost = [sample.length, sample.logp, sample.cost.decoded, sample.cost.passes]
        rows[key] = [*key, prompt, sample.text, *scored, *cost]
    return table(columns=COLUMNS, data=[rows[key] for key in keys])
