"""How the Metropolis-Hastings chains of a run went: where they accept, how they climb, how well they mix."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import fmean, median
from typing import Any, NamedTuple

from powerbench.report.summary import Results
from powerbench.report.tables.table import Column, Shown, Table
from powerbench.stats.diagnostics import LEAST_LAGS, mixing
from powerbench.stats.intervals import Estimate, Interval, clustered, student
from powerbench.types import Sample, Step

TENTHS = 10
"""Parts of the horizon by which restart positions are told apart."""

AGREE = 1.1
"""R-hat up to which chains are usually taken to agree."""


class Rate(NamedTuple):
    """Accepted steps among those that decoded a proposal."""

    place: int
    """The block, or the tenth of the horizon, from 0."""
    accepted: float
    interval: Interval
    proposals: int


class Chains(NamedTuple):
    """What the steps of a run say. Intervals are over problems."""

    steps: int
    """In each block."""
    by_block: Sequence[Rate]
    by_position: Sequence[Rate]
    rise: Sequence[Estimate]
    """Log-likelihood gained since a block's first state, nats: after 0, 1 ... steps."""
    ess: float | None
    """Effective draws of the log-likelihood among the steps of a chain's last block: median over problems."""
    r_hat: float | None
    """Between the replicates of a problem, in their last block: median over problems."""
    disagree: float | None
    """Problems whose R-hat is above 1.1, of those that have one."""
    mixed: int
    """Problems that have an R-hat."""
    stayed: float
    """Steps whose restart lay past the end, of all steps: they change nothing."""


def read(results: Results) -> Chains | None:
    """The chains of a run, read one at a time; None if no sample has steps."""
    horizon = _horizon(results.run.config)
    counts = _Counts(horizon)
    for sample in results.run.stream():
        if sample.steps:
            counts.add(sample)
    return counts.chains()


def _horizon(config: Mapping[str, Any]) -> int | None:
    """Tokens in a block."""
    sampler = config["sampler"]
    if not {"max_tokens", "blocks"} <= set(sampler):
        return None
    return sampler["max_tokens"] // sampler["blocks"]


class _Counts:
    """What is kept of the samples that have been read."""

    def __init__(self, block: int | None) -> None:
        self._block = block
        self._accepted: dict[str, dict[int, dict[str, list[float]]]] = {
            kind: defaultdict(lambda: defaultdict(list)) for kind in ("block", "position")
        }
        self._rises: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._last: dict[str, dict[int, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
        self._steps = self._stayed = 0

    def add(self, sample: Sample) -> None:
        for _, steps in groupby(sample.steps, lambda step: step.block):
            states = _states(list(steps))
            for n, state in enumerate(states):
                self._rises[n][sample.problem].append(state - states[0])
        self._last[sample.problem][sample.steps[-1].block].append(states[1:])
        for step in sample.steps:
            self._count(sample.problem, step)

    def _count(self, problem: str, step: Step) -> None:
        self._steps += 1
        if not step.decoded:
            self._stayed += 1
            return
        self._accepted["block"][step.block][problem].append(float(step.accepted))
        if self._block is not None:
            tenth = TENTHS * step.restart // ((step.block + 1) * self._block)
            self._accepted["position"][min(tenth, TENTHS - 1)][problem].append(float(step.accepted))

    def chains(self) -> Chains | None:
        if not self._steps:
            return None
        found = [mixing(_alike(by_block)) for by_block in self._last.values()]
        r_hats = [m.r_hat for m in found if m.r_hat is not None]
        sizes = [m.ess for m in found if m.ess is not None]
        return Chains(
            steps=max(self._rises),
            by_block=_rates(self._accepted["block"]),
            by_position=_rates(self._accepted["position"]),
            rise=[student(self._rises[n]) for n in sorted(self._rises)],
            ess=median(sizes) if sizes else None,
            r_hat=median(r_hats) if r_hats else None,
            disagree=fmean(r > AGREE for r in r_hats) if r_hats else None,
            mixed=len(r_hats),
            stayed=self._stayed / self._steps,
        )


def _states(block: Sequence[Step]) -> list[float]:
    """The log-likelihoods before the first step of a block and after each, nats."""
    after = (s.proposed if s.accepted and s.proposed is not None else s.current for s in block)
    return [block[0].current, *after]


def _alike(by_block: Mapping[int, list[list[float]]]) -> list[list[float]]:
    """The chains of a problem that ended in one block, and so have one target: as many as there are."""
    return max(by_block.values(), key=len)


def _rates(accepted: Mapping[int, Mapping[str, list[float]]]) -> list[Rate]:
    rates = []
    for place in sorted(accepted):
        values = accepted[place]
        estimate = clustered(values)
        rates.append(Rate(place, estimate.mean, estimate.interval, sum(map(len, values.values()))))
    return rates


# -- the table ------------------------------------------------------------------------------------

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("steps", "Metropolis-Hastings steps in a block"),
    Column("acceptance", "accepted steps among those that decoded a proposal", ".2f"),
    Column("first block", "the same in a chain's first block", ".2f"),
    Column("stayed", "steps whose restart lay past the end of the response", ".1%"),
    Column(
        "climb",
        "log-likelihood gained from a block's first state to its last, nats; 95% interval over problems",
        ".2f",
    ),
    Column(
        "ESS",
        "effective draws of the log-likelihood among the steps of a chain's last block, median over problems; "
        f"from {LEAST_LAGS} steps on, and where it is below what so few draws can show",
        ".1f",
    ),
    Column(
        "R-hat",
        "of the log-likelihood between a problem's replicates in their last block, median over problems; "
        f"in brackets: problems above {AGREE}; few steps exceed 1 by chance, too",
    ),
    Column("truncated", "responses that reached the length limit without a stop token", ".1%"),
)


def table(found: Iterable[tuple[Results, str, Chains]]) -> Table:
    """The chains of several runs. found: run, its label, its chains."""
    rows = []
    for results, label, chains in found:
        s = results.summary
        first = chains.by_block[0].accepted if chains.by_block else None
        rows.append(
            (
                s.task,
                s.model,
                label,
                chains.steps,
                s.acceptance,
                first,
                chains.stayed,
                chains.rise[-1],
                chains.ess,
                _r_hat(chains),
                s.truncated,
            )
        )
    return Table("chains", "Chains", COLUMNS, rows, by=2)


def _r_hat(chains: Chains) -> Shown | None:
    if chains.r_hat is None or chains.disagree is None:
        return None
    shown = f"{chains.r_hat:.2f} ({chains.disagree:.0%} of {chains.mixed})"
    values = {"R-hat": chains.r_hat, "R-hat, above 1.1": chains.disagree, "R-hat, n": chains.mixed}
    return Shown(shown, values)
