"""Small run folders, written through the store as the runner and the verifiers write them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from powerbench.report.build import write
from powerbench.report.summary import Results, Summary
from powerbench.store import Run
from powerbench.store.writing import create, sample_writer, score_writer
from powerbench.types import Cost, FinishReason, Problem, Prompt, Sample, SampleKey, Score, Step

STEPS = (
    Step(0, 1, -9.0, -7.0, 3, True),
    Step(0, 2, -7.0, None, 1, False),
    Step(0, 6, -7.0, None, 0, False),  # past the end: stays
    Step(1, 0, -7.0, -8.0, 4, False),
)


def sample(problem: str = "p0", replicate: int = 0, length: int = 4, **changes: Any) -> Sample:
    """A response of `length` tokens, at -0.5 nats a token and an entropy of 0.25."""
    fields = {
        "text": f"The answer to {problem} is {replicate}.",
        "tokens": tuple(range(length)),
        "logp": -0.5 * length,
        "entropy": 0.25 * length,
        "finish_reason": FinishReason.STOP,
        "prompt_tokens": 7,
        "cost": Cost(decoded=length, prefilled=7, seconds=1.0, finished=100.0, attended=70.0),
    }
    return Sample(problem, replicate, **fields | changes)


def write_run(
    path: Path,
    samples: Iterable[Sample],
    scores: Mapping[tuple[str, int], Score] | None = None,
    prompt: str = "What is {}?",
    task: str = "math500",
    model: str = "tiny",
    settings: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    problems: Sequence[str] | None = None,
    **shared: Any,
) -> Run:
    """A run folder at `path`, named <sampler>-<hash>, with the given samples and verdicts.

    settings: the sampler's. problems: by default those of the samples. shared: settings of the whole
    configuration.
    """
    samples = list(samples)
    run = Run(path)
    shown = [
        Problem(id_, Prompt(prompt.replace("{}", id_)), gold=f"gold of {id_}")
        for id_ in dict.fromkeys(problems or [s.problem for s in samples])
    ]
    config = {
        "task": {"name": task},
        "model": {"name": model},
        "sampler": {"name": path.name.rsplit("-", 1)[0], **(settings or {})},
        "verifier": {"name": "math"},
        **shared,
    }
    made_by = {
        "git": {"commit": "abc123"},
        "packages": {},
        "digest": "12345678",
        **(manifest or {}),
    }
    create(run, yaml.safe_dump(config), made_by, shown)
    with sample_writer(run) as writing:
        for one in samples:
            writing.write(one)
    if scores is not None:
        write_scores(run, "math", scores)
    return run


def write_scores(run: Run, verifier: str, scores: Mapping[tuple[str, int], Score]) -> None:
    """The verdicts of one verifier."""
    with score_writer(run, verifier) as write:
        for key, score in scores.items():
            write(SampleKey(*key), score)


def grid(problems: int, replicates: int, **changes: Any) -> list[Sample]:
    """Samples for every problem p0, p1, ... and replicate, each response a little longer."""
    return [
        sample(f"p{i}", r, length=4 + i + r, **changes)
        for i in range(problems)
        for r in range(replicates)
    ]


def verdicts(samples: Iterable[Sample], every: int = 2) -> dict[tuple[str, int], Score]:
    """Every `every`-th response is right."""
    return {
        (s.problem, s.replicate): Score(correct=i % every == 0, answer=str(i), reason="compared")
        for i, s in enumerate(samples)
    }


def summarise(run: Run) -> Summary:
    """The run as numbers."""
    return Results.read(run).summary


def write_report(runs: Iterable[Run], out: Path) -> Path:
    """The report of some runs; the page's path."""
    return write(list(map(Results.read, runs)), out)
