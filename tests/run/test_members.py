"""The members of populations, from a sampler's outcome to oracle coverage: exact on a toy, and in whole runs.

Run: pytest tests/run/test_members.py
"""

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from powerbench.chains.law import context_of, law
from powerbench.cli import main
from powerbench.models import TabularModel
from powerbench.report.summary import Results
from powerbench.samplers.best_of_n import BestOfN
from powerbench.samplers.common import Sampler
from powerbench.samplers.deepconf import DeepConf
from powerbench.samplers.self_consistency import SelfConsistency
from powerbench.store import Run, find_runs, records
from powerbench.types import Problem, Request, Score, Tokens
from powerbench.verifiers.math import MathVerifier

TOY = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none"]
MODEL = TabularModel(seed=1)
RIGHT = "1"


def first(tokens: Tokens) -> str | None:
    return str(tokens[0]) if tokens[0] else None


@pytest.mark.parametrize(
    "sampler",
    [
        BestOfN(2, n=3, temperature=0.8),
        SelfConsistency(2, n=3, temperature=0.8),
        DeepConf(2, n=3, temperature=0.8, together=2, top_k_confidence=2, eta=1.0),
    ],
    ids=lambda s: type(s).__name__,
)
def test_the_coverage_of_independent_draws_is_pass_at_n(sampler: Sampler) -> None:
    """By enumeration of the shipped code: 1 - (1 - p)^n, whatever is returned."""
    context = replace(context_of(MODEL), answer=first)

    def program() -> Generator[Request, Any, tuple[bool, bool]]:
        outcome = yield from sampler.chain(context)
        covered = RIGHT in map(first, outcome.members)
        return first(outcome.tokens) == RIGHT, covered

    found = law(program, MODEL)
    p = MODEL.p(()) ** (1 / 0.8)
    right = p[int(RIGHT)] / p.sum()
    coverage = sum(chance for (_, covered), chance in found.items() if covered)
    returned = sum(chance for (is_right, _), chance in found.items() if is_right)
    assert coverage == pytest.approx(1 - (1 - right) ** 3, abs=1e-12)
    assert (True, False) not in found
    assert 0 < returned < coverage


def letter(self: MathVerifier, text: str) -> str | None:
    return text[2:3] or None


def is_b(self: MathVerifier, problem: Problem, answer: str) -> Score:
    return Score(correct=answer == "b", answer=answer)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy's answer is its third letter, and b is right."""
    monkeypatch.setattr(MathVerifier, "read", letter)
    monkeypatch.setattr(MathVerifier, "grade", is_b)


def toy_run(runs: Path, *settings: str) -> Run:
    main(["run", *TOY, f"runs={runs}", *settings])
    (run,) = find_runs([runs])
    return run


@pytest.mark.parametrize(
    ("sampler", "settings", "members"),
    [
        ("best_of_n", ["sampler.n=5"], 5),
        ("power_smc", ["sampler.particles=4", "sampler.ramp=0"], 4),
        ("parallel_tempering", ["sampler.replicas=3", "steps=2"], 3),
    ],
)
def test_a_run_keeps_what_members_answer_and_the_scores_say_which_are_right(
    tmp_path: Path, reading: None, sampler: str, settings: list[str], members: int
) -> None:
    run = toy_run(tmp_path, f"sampler={sampler}", "limit=8", *settings)
    scores, covered = run.scores("math"), 0
    for key, sample in run.samples().items():
        assert sample.members is not None and sample.members.verifier == "math"
        answers = sample.members.answers
        assert len(answers) == members
        returned = -1 if sampler == "parallel_tempering" else sample.rounds[-1].kept[0]
        assert answers[returned] == (sample.text[2:3] or None)
        assert scores[key].members == tuple(answer == "b" for answer in answers)
        covered += any(scores[key].members)
    summary = Results.read(run).summary
    assert summary.coverage is not None and summary.value is not None
    assert summary.coverage.coverage.mean == covered / 8 >= summary.value.mean
    assert run.metrics["coverage"][1][0] == covered / 8


def test_samples_from_before_answers_were_kept_load_and_are_scored(
    tmp_path: Path, reading: None
) -> None:
    run = toy_run(tmp_path, "sampler=best_of_n", "sampler.n=3", "limit=2")
    file = run.samples_file()
    older = [json.loads(line) for line in file.read_bytes().splitlines()]
    for record in older:
        del record["members"], record["crc"]
    file.write_bytes(b"".join(map(records.encode, older)))
    (run.path / "scores/math.jsonl").unlink()
    again = toy_run(tmp_path, "sampler=best_of_n", "sampler.n=3", "limit=2")
    assert [sample.members for sample in again.stream()] == [None, None]
    assert [score.members for score in again.scores("math").values()] == [(), ()]
    assert Results.read(again).summary.coverage is None


@pytest.mark.parametrize(
    "settings", [["sampler=power"], ["sampler=best_of_n", "task=instructions_mini"]]
)
def test_without_a_population_or_without_answers_there_are_no_members(
    tmp_path: Path, settings: list[str]
) -> None:
    run = toy_run(tmp_path, "limit=1", *settings)
    assert all(sample.members is None for sample in run.stream())
    assert Results.read(run).summary.coverage is None
