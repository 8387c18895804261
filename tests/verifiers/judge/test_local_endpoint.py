"""The judge at a real endpoint: llama.cpp's server (xllamacpp) with the bundled language model.

Run: pytest tests/verifiers/judge/test_local_endpoint.py
"""

import json
import math
import urllib.request
from typing import Any, NamedTuple

import pytest
from local_server import llamacpp

from powerbench.types import Problem, Prompt, Score
from powerbench.verifiers.common import CannotScore
from powerbench.verifiers.judge import EndpointJudge
from powerbench.verifiers.judge.prompt import filled, published_prompt
from powerbench.verifiers.judge.verifier import swapped

pytestmark = pytest.mark.model

PAIRS = [("m", "m", "m m"), ("Say hi.", "hi", "no")]
"""Instruction, baseline, response: the small model has both labels in mind for the first pair only."""


def problem(instruction: str, baseline: str) -> Problem:
    return Problem(instruction, Prompt(""), baseline, {"instruction": instruction})


class Judged(NamedTuple):
    """What one server said."""

    url: str
    cache: str
    scores: list[Score]
    direct: list[dict[str, float]]
    """The log-probabilities in its answers to the same questions, asked without powerbench."""
    too_long: Score
    wrong_path: str


def judge(url: str, cache: str) -> EndpointJudge:
    return EndpointJudge(
        model="smollm2", base_url=url, key_env=None, cache=cache, retries=0, price_prompt=0.0
    )


def ask(url: str, instruction: str, first: str, second: str) -> dict[str, float]:
    request: dict[str, Any] = {
        "messages": filled(published_prompt(), instruction, first, second),
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 5,
    }
    headers = {"Content-Type": "application/json"}
    post = urllib.request.Request(f"{url}/chat/completions", json.dumps(request).encode(), headers)
    with urllib.request.urlopen(post, timeout=60) as reply:
        said = json.load(reply)
    top = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {token["token"]: token["logprob"] for token in top}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """What comes of all questions; the server has ended by then."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with llamacpp() as url:
        verifier, scores, direct = judge(url, cache), [], []
        for instruction, baseline, text in PAIRS:
            scores.append(verifier.score(problem(instruction, baseline), text))
            outputs = (text, baseline) if swapped(instruction) else (baseline, text)
            direct.append(ask(url, instruction, *outputs))
        too_long = verifier.score(problem("m", "m"), "word " * 2000)
        with pytest.raises(CannotScore) as wrong_path:
            judge(f"{url}/nowhere", cache).score(problem("m", "m"), "")
        verifier.close()
    return Judged(url, cache, scores, direct, too_long, str(wrong_path.value))


def test_preferences_are_those_of_the_models_own_log_probabilities(judged: Judged) -> None:
    for (instruction, *_), score, top in zip(PAIRS, judged.scores, judged.direct, strict=True):
        m, M = (math.exp(top.get(label, -math.inf)) for label in ("m", "M"))
        expected = (m if swapped(instruction) else M) / (m + M)
        assert score.preference == pytest.approx(expected, abs=1e-6)
        assert score.by == "smollm2-135m"
    assert {"m", "M"} <= judged.direct[0].keys()


def test_a_judged_pair_needs_no_server_any_more(judged: Judged) -> None:
    verifier = judge(judged.url, judged.cache)
    again = [verifier.score(problem(*pair[:2]), pair[2]) for pair in PAIRS]
    assert again == judged.scores
    assert verifier.progress() == "2 judged, 2 from the cache, $0.00"
    with pytest.raises(CannotScore, match="see that it runs"):
        verifier.score(problem("m", "m"), "another")


def test_a_pair_beyond_the_models_context_is_undecided(judged: Judged) -> None:
    assert judged.too_long.value is None
    assert judged.too_long.reason.startswith("400 ")
    assert "context" in judged.too_long.reason


def test_a_wrong_path_is_named(judged: Judged) -> None:
    assert f"{judged.url}/nowhere gave no answer" in judged.wrong_path
    assert " 404 " in judged.wrong_path
