"""What every sampler keeps to, whatever it is: each yaml of conf/sampler, small, on the toy engine.

Run: pytest tests/samplers/test_all_samplers.py
"""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_chains import completed

from powerbench.chains import testing
from powerbench.chains.law import context_of, loglikelihood
from powerbench.config import compose, conf_dir, options
from powerbench.samplers import beam, scalable_power_tokens

SMALL = {
    "n": 3,
    "warm_up": 2,
    "particles": 4,
    "ramp": 3,
    "min_tokens": 2,
    "stop_at_answer": False,  # a toy response has its answer with its first token
    "candidates": 4,
    "kept": 2,
    "rollouts": 2,
    "lookahead": 3,
    "interval": 2,
    "window": 3,
    "together": 2,
    "top_k_confidence": 3,
    "eta": 1.0,
    "consensus": 1.0,
    "replicas": 2,
    "tries": 2,
    "width": 3,
    "beams": 2,
    "block": 4,
}
"""Small values of settings that some samplers have."""
SAMPLERS = options("sampler")


def small(name: str) -> Any:
    """The sampler that a yaml describes, at most 12 tokens in 3 blocks."""
    job = compose([f"sampler={name}", "max_tokens=12", "blocks=3", "steps=3"])
    node = job.values.sampler
    for setting, value in SMALL.items():
        if isinstance(node.get(setting), int | float):
            node[setting] = value
    return job.build("sampler")


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_outcome_depends_on_the_width(name: str) -> None:
    testing.check_batches(small(name))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_outcome_is_a_response_with_its_own_likelihood(name: str) -> None:
    testing.check_outcomes(small(name))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chain_goes_on_from_each_saved_state_as_if_never_stopped(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (beam, scalable_power_tokens):
        monkeypatch.setattr(module, "SAVED_EVERY", 4)
    testing.check_saved_states(small(name))


POPULATIONS = {
    *("best_of_n", "self_consistency", "deepconf", "deepconf_online", "aps"),
    *("power_smc", "ccps", "apps", "scalable_power", "scalable_power_tokens"),
    *("beam", "block_beam", "parallel_tempering", "prefix_exchange"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_population_has_its_members_in_the_order_of_the_last_round(name: str) -> None:
    sampler = small(name)
    context = replace(context_of(testing.MODEL), answer=lambda tokens: str(tokens[0]))
    for done in completed(sampler, testing.MODEL, count=6, context=context).values():
        members, rounds = done.outcome.members, done.outcome.rounds
        assert bool(members) == (name in POPULATIONS)
        if name == "parallel_tempering":
            assert len(members) == len(sampler.ladder) and members[-1] == done.outcome.tokens
        elif rounds and members:
            logp = [loglikelihood(testing.MODEL, tokens) for tokens in members]
            assert rounds[-1].logp == pytest.approx(logp, abs=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_key_names_two_draws(name: str) -> None:
    testing.check_keys(small(name))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_draws_nothing_says_so(name: str) -> None:
    sampler = small(name)
    testing.check_deterministic(sampler)
    assert sampler.deterministic == (name in ("greedy", "beam"))


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
