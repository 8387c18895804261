"""`make bench-load`: power-sampling chains beside programs that keep cores busy, by how OpenMP's threads wait.

Each way to wait has a process of its own, for its runtime reads the environment once; they are asked in turn,
with no neighbour, with one and with two, each of which spins on a core. About five minutes on two cores.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from powerbench.bench.rounds import Rate
from powerbench.errors import UserError, require
from powerbench.machine.cpus import usable_cpus
from powerbench.machine.threads import OURS, POLICY, WAITING
from powerbench.store.provenance import provenance

if TYPE_CHECKING:
    from powerbench.engines.base import Engine

SPINS = "GOMP_SPINCOUNT"
HERE = f"{int(WAITING[SPINS]):,} (powerbench)"
RUNTIME = "300,000 (libgomp)"
SETTINGS: Mapping[str, Mapping[str, str]] = {
    RUNTIME: {SPINS: "300000"},
    "100,000": {SPINS: "100000"},
    "10,000": {SPINS: "10000"},
    HERE: {},
    "none (PASSIVE)": {POLICY: "PASSIVE"},
}
"""What a user would set, by how often a thread looks for work before it sleeps."""

SPIN = "while True: pass"
SETTLE = 0.3
"""Seconds that neighbours have to start in."""
LONGEST = 30.0
"""Seconds after which a run is cut off; its rate is that of what was decoded until then."""

QUIET = 0
TINY = "tiny"
"""Random weights, to try this program itself."""


@dataclass(frozen=True)
class Work:
    """The chains that one run decodes."""

    model: str
    chains: int = 8
    tokens: int = 16

    def words(self) -> list[str]:
        sizes = {"chains": self.chains, "tokens": self.tokens}
        return ["--model", self.model, *(f"--{name}={size}" for name, size in sizes.items())]


def name(setting: str, neighbours: int) -> str:
    """Of a setting's run beside so many neighbours."""
    return f"{setting}, {neighbours} neighbours"


def measure(
    work: Work, neighbours: Sequence[int], repeats: int, minutes: float
) -> tuple[int, dict[str, Rate]]:
    """Threads of each process, and tokens decoded a second in every round, by `name`.

    minutes: no further round begins that would not be over by then, if it takes as long as the longest one.
    Raises UserError where a process ends, or has one thread only.
    """
    began, rounds = time.monotonic(), list[dict[str, float]]()
    with ExitStack() as stack:
        workers = {}
        for setting, environment in SETTINGS.items():
            ask = workers[setting] = stack.enter_context(_worker(work, environment))
            threads = int(ask("warm")["threads"])
            require(
                threads > 1,
                "threads that wait for each other are two or more: unset OMP_NUM_THREADS, or set it to the "
                "number of cores",
            )
        longest = 0.0
        while len(rounds) < repeats:
            start = time.monotonic()
            if rounds and start - began + longest > 60 * minutes:
                break
            rounds.append(_round(workers, neighbours))
            longest = max(longest, time.monotonic() - start)
    return threads, {case: Rate(case, [each[case] for each in rounds]) for case in rounds[0]}


def _round(
    workers: Mapping[str, Callable[[str], Mapping[str, float]]], neighbours: Sequence[int]
) -> dict[str, float]:
    found = {}
    for count in neighbours:
        with _spinning(count):
            for setting, ask in workers.items():
                done = ask("go")
                found[name(setting, count)] = done["tokens"] / done["seconds"]
    return found


@contextmanager
def _spinning(count: int) -> Iterator[None]:
    """So many programs, each of which keeps a core busy."""
    programs = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        time.sleep(SETTLE)
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


@contextmanager
def _worker(
    work: Work, settings: Mapping[str, str]
) -> Iterator[Callable[[str], Mapping[str, float]]]:
    """A process that waits as set, and decodes when it is asked to."""
    not_theirs = (*WAITING, POLICY, OURS)
    inherited = {key: value for key, value in os.environ.items() if key not in not_theirs}
    command = [sys.executable, "-m", "powerbench.bench.load", "--worker", *work.words()]
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, encoding="utf-8", env={**inherited, **settings}
    )

    def ask(what: str) -> Mapping[str, float]:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(what + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise UserError(f"a process ended with {child.wait()}: {shlex.join(command)}")
        return json.loads(line)

    try:
        yield ask
    finally:
        child.kill()
        child.communicate()


# -- in a process of its own ----------------------------------------------------------------------


def serve(work: Work) -> None:
    """Answer every line of standard input by a run's threads, tokens and seconds; a first one warms up."""
    import torch

    run = _prepare(work)
    for _ in sys.stdin:
        began = time.perf_counter()
        tokens = run()
        seconds = time.perf_counter() - began
        found = {"threads": torch.get_num_threads(), "tokens": tokens, "seconds": seconds}
        print(json.dumps(found), flush=True)


def _prepare(work: Work) -> Callable[[], int]:
    """The model loaded; a run returns the tokens that it decoded."""
    import torch

    from powerbench.bench.gpu import RandomModel
    from powerbench.bench.savings import QUESTIONS
    from powerbench.config import compose
    from powerbench.engines.hf import HFEngine
    from powerbench.types import Prompt, Tokens

    model: Any
    if work.model == TINY:
        model = RandomModel(TINY, torch.float32)
        prompts: list[Tokens] = [(5, 6, 7, 8 + i) for i in range(work.chains)]
        eos, stop_tokens = 1, (1,)
    else:
        model = compose([f"model={work.model}", "model.dtype=float32"]).build("model")
        tokenizer = model.tokenizer()
        asked = (QUESTIONS[i % len(QUESTIONS)] for i in range(work.chains))
        prompts = [tokenizer.encode(Prompt(text, chat=True)) for text in asked]
        eos, stop_tokens = tokenizer.eos, tokenizer.stop_tokens
    engine = HFEngine(
        model,
        max(map(len, prompts)),
        work.tokens,
        max_num_seqs=2 * work.chains,
        device="cpu",
        draft=0,
    )
    return partial(_decode, engine, prompts, work.tokens, eos, stop_tokens)


def _decode(
    engine: "Engine",
    prompts: Sequence[tuple[int, ...]],
    tokens: int,
    eos: int,
    stop_tokens: tuple[int, ...],
) -> int:
    from powerbench.chains.runner import ChainSpec, run_chains
    from powerbench.rng import Stream
    from powerbench.samplers.power import Power
    from powerbench.types import Context, Progress, SampleKey

    sampler = Power(max_tokens=tokens, alpha=4.0, blocks=2, steps=2)
    chains = [
        ChainSpec(
            SampleKey(str(i), 0),
            prompt,
            partial(sampler.chain, Context(prompt, eos, stop_tokens)),
            Stream(0, "bench", str(i), 0),
        )
        for i, prompt in enumerate(prompts)
    ]
    progress, until = Progress(), time.monotonic() + LONGEST
    for _ in run_chains(chains, engine, progress):
        if time.monotonic() > until:
            break
    return progress.decoded


# -- the command ----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.load", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help=f"in conf/model, or {TINY}")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="of a response")
    parser.add_argument("--neighbours", type=int, nargs="+", default=[QUIET, 1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="rounds, at most")
    parser.add_argument("--minutes", type=float, default=5.5, help="for all rounds, at most")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = Work(options.model, options.chains, options.tokens)
    if options.worker:
        serve(work)
        return
    neighbours = sorted({QUIET, *options.neighbours})
    try:
        threads, rates = measure(work, neighbours, options.repeats, options.minutes)
    except UserError as error:
        sys.exit(f"powerbench: {error}")
    cores = usable_cpus().count
    record = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {k: str(v) for k, v in vars(options).items() if k not in ("out", "worker")},
        "cores": cores,
        "threads": threads,
        "tokens_per_second": {case: list(rate.rounds) for case, rate in rates.items()},
        "of_libgomps_quiet_run": ratios(rates),
        "provenance": provenance(
            shlex.join(["python", "-m", "powerbench.bench.load", *sys.argv[1:]])
        ),
    }
    show(rates, neighbours, f"{options.model}, {threads} threads on {cores} cores")
    out = options.out or Path(f"runs/bench/load-{cores}-cores.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"written to {out}")


def ratios(rates: Mapping[str, Rate]) -> dict[str, float]:
    """Of every case to the run that the runtime itself would make on a quiet machine."""
    quiet = rates[name(RUNTIME, QUIET)]
    return {case: rate.over(quiet) for case, rate in rates.items()}


def show(rates: Mapping[str, Rate], neighbours: Sequence[int], title: str) -> None:
    """Print the ratios, a row for each setting, and what they say of the one that is powerbench's."""
    console, found = Console(width=100), ratios(rates)
    console.print(f"{title}; speed, of libgomp's own on a quiet machine")
    table = Table(box=SIMPLE)
    table.add_column("spins before sleep")
    for count in neighbours:
        table.add_column(f"{count} busy neighbours", justify="right")
    for setting in SETTINGS:
        table.add_row(setting, *(f"{found[name(setting, count)]:.2f}x" for count in neighbours))
    console.print(table)
    most = max(neighbours)
    kept = rates[name(HERE, most)].over(rates[name(HERE, QUIET)])
    rounds = len(rates[name(HERE, QUIET)].rounds)
    console.print(
        f"medians of {rounds} rounds; {HERE} beside {most} neighbours: {kept:.2f} of its own quiet run; "
        f"on the quiet machine {found[name(HERE, QUIET)]:.2f} of libgomp's"
    )


if __name__ == "__main__":
    main()
