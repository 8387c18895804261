"""What every sampler keeps to, whatever it is: each yaml of conf/sampler, small, on the toy engine.

Run: pytest tests/samplers/test_all_samplers.py
"""

import ast
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from powerbench.chains.law import context_of
from powerbench.chains.runner import AtBlockEnd, ChainSpec, Completed, run_chains
from powerbench.config import compose, conf_dir, options
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.types import Checkpoint, Outcome, Progress, SampleKey

MODEL = TabularModel(vocabulary=5, seed=3)
SMALL = {
    "n": 3,
    "warm_up": 2,
    "particles": 4,
    "candidates": 4,
    "kept": 2,
    "rollouts": 2,
    "lookahead": 3,
    "interval": 2,
    "window": 3,
    "together": 2,
    "top_k_confidence": 3,
    "replicas": 2,
    "tries": 2,
    "width": 3,
}
"""Small values of settings that some samplers have."""
SAMPLERS = options("sampler")


def small(name: str) -> Any:
    """The sampler that a yaml describes, at most 12 tokens in 3 blocks."""
    job = compose([f"sampler={name}", "max_tokens=12", "blocks=3", "steps=3"])
    node = job.values.sampler
    for setting, value in SMALL.items():
        if isinstance(node.get(setting), int):
            node[setting] = value
    return job.build("sampler")


def run(
    name: str, width: int, checkpoints: dict[SampleKey, Checkpoint] | None = None
) -> tuple[dict[SampleKey, Completed], list[AtBlockEnd]]:
    """Six chains: what they return, and where they could have been started again."""
    context = context_of(MODEL)
    sampler = small(name)
    if sampler.votes:
        context = replace(context, answer=lambda tokens: str(tokens[0]) if tokens else None)
    starts = [
        ChainSpec(
            key, (), partial(sampler.chain, context), Stream(0, "t", key.problem, 0), checkpoint
        )
        for i in range(6)
        for key in [SampleKey(f"p{i}", 0)]
        for checkpoint in [(checkpoints or {}).get(key)]
    ]
    events = [e for e in run_chains(starts, ToyEngine(MODEL, max_num_seqs=width), Progress()) if e]
    done = {e.key: e for e in events if isinstance(e, Completed)}
    return done, [e for e in events if isinstance(e, AtBlockEnd)]


def outcomes(done: dict[SampleKey, Completed]) -> dict[SampleKey, tuple[Outcome, int]]:
    return {key: (each.outcome, each.cost.decoded) for key, each in done.items()}


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_outcome_depends_on_the_width(name: str) -> None:
    assert outcomes(run(name, 1)[0]) == outcomes(run(name, 7)[0]) == outcomes(run(name, 60)[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_outcome_is_a_response_with_its_own_likelihood(name: str) -> None:
    sampler = small(name)
    for each in run(name, 7)[0].values():
        tokens = each.outcome.tokens
        assert len(tokens) <= sampler.max_tokens
        assert 0 not in tokens[:-1]  # nothing goes on after EOS
        logp = [math.log(MODEL.p(tokens[:i])[t]) for i, t in enumerate(tokens)]
        assert each.outcome.logp == pytest.approx(sum(logp))
        assert each.cost.decoded >= len(tokens) or name == "beam"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chain_goes_on_from_each_saved_state_as_if_never_stopped(name: str) -> None:
    whole, saved = run(name, 7)
    for each in saved:
        state = json.loads(json.dumps(dict(each.checkpoint.state)))  # as the run folder keeps it
        checkpoint = Checkpoint(state, each.checkpoint.decoded, 0, 0, (), 0.0)
        again, _ = run(name, 7, {each.key: checkpoint})
        assert again[each.key].outcome == whole[each.key].outcome
        assert again[each.key].cost.decoded == whole[each.key].cost.decoded


@pytest.mark.parametrize(
    "file", sorted(Path("powerbench/samplers").glob("*.py")), ids=lambda f: f.stem
)
def test_a_sampler_knows_no_engine_task_or_file(file: Path) -> None:
    known = (
        "powerbench.errors",
        "powerbench.types",
        "powerbench.samplers",
        "powerbench.stats.intervals",
    )
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("powerbench"):
            assert (node.module or "").startswith(known), f"{file.name} imports {node.module}"
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        assert not {"pathlib", "os", "torch"} & set(names)


def test_every_sampler_says_what_it_is() -> None:
    for name, what in SAMPLERS.items():
        assert what, f"conf/sampler/{name}.yaml has no line that says what it is"
        module = (conf_dir() / "sampler" / f"{name}.yaml").read_text()
        assert "_target_: powerbench.samplers." in module
