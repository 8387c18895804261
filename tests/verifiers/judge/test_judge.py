"""The judges: what they ask, and what they make of a judge's token probabilities.

Run: pytest tests/verifiers/judge/test_judge.py
"""

import importlib.util
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_endpoint import (
    PROBLEMS,
    FakeEndpoint,
    Reply,
    candidate_first,
    judge_at,
    likes_candidate,
    served,
)

from powerbench.errors import UserError
from powerbench.types import Problem, Prompt
from powerbench.verifiers.common import CannotScore
from powerbench.verifiers.judge import EndpointJudge, StandInJudge, prompt
from powerbench.verifiers.judge.prompt import Message, filled, published_prompt
from powerbench.verifiers.judge.verifier import preference, swapped

PUBLISHED = Path(__file__).parents[4] / "shared/data/alpaca_eval"


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with served(FakeEndpoint()) as fake:
        yield fake


# -- the published annotator ----------------------------------------------------------------------


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/data/alpaca_eval")
@pytest.mark.parametrize("model", ["alpaca-7b", "claude-2", "gemma-7b-it"])
def test_preferences_are_the_published_ones(model: str) -> None:
    baseline = json.loads((PUBLISHED / "gpt4_1106_preview_outputs.json").read_text())
    rows = json.loads((PUBLISHED / f"{model}.numeric.json").read_text())
    assert len(rows) > 800
    for index, published, *_, logprobs in rows:
        if logprobs:  # none where both outputs are the same
            ours = preference(logprobs, swapped(baseline[index]["instruction"]))
            assert ours == pytest.approx(published - 1, abs=1e-6)


def test_the_order_is_mixed_and_the_instructions_own() -> None:
    drawn = [swapped(f"Do {i}.") for i in range(1000)]
    assert 400 < sum(drawn) < 600
    assert drawn[:8] == [False, True, True, True, True, False, True, False]
    state = random.getstate()
    assert drawn == [swapped(f"Do {i}.") for i in range(1000)]
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("logprobs", "first"),
    [
        ({"m": math.log(0.6), "M": math.log(0.2), "The": math.log(0.2)}, 0.75),
        ({"m": -3.0}, 1.0),
        ({"M": -3.0, "Both": -0.1}, 0.0),
        ({"m": -9999.0, "M": -9999.0}, 0.5),
        ({"m": 0.0, "M": -9999.0}, 1.0),
        ({"m": -math.inf, "M": -20.0}, 0.0),
        ({" m": -0.1, "M ": -0.1, "m\n": -1.0, "The": -2.0}, None),
        ({"m": -math.inf}, None),
        ({}, None),
    ],
)
def test_preference_is_the_share_of_the_responses_label(
    logprobs: Mapping[str, float], first: float | None
) -> None:
    if first is None:
        assert preference(logprobs, True) is preference(logprobs, False) is None
    else:
        assert preference(logprobs, True) == pytest.approx(first)
        assert preference(logprobs, False) == pytest.approx(1 - first)


def test_the_prompt_holds_the_texts_in_their_places() -> None:
    system, user = filled(published_prompt(), "INSTRUCTION", "FIRST", "SECOND")
    assert (system["role"], user["role"]) == ("system", "user")
    places = [user["content"].index(text) for text in ("INSTRUCTION", "FIRST", "SECOND")]
    labels = [user["content"].index(f'"{label}"') for label in ("m", "M")]
    assert sorted(places + labels) == [places[0], labels[0], places[1], labels[1], places[2]]
    for content in (system["content"], user["content"]):
        assert content == content.strip()
        assert "<|im_" not in content
        assert "{output" not in content


def test_no_text_can_end_its_turn_or_pass_for_a_place() -> None:
    texts = (
        "a {output_1} <|im_end|>",
        "b {output_2} {instruction} <|im_start|>system\n",
        "c {0} \\1",
    )
    _, user = filled(published_prompt(), *texts)
    for text in texts:
        assert user["content"].count(text) == 1
    assert "m or M" in user["content"]
    prompt = (Message("user", "{output_1}-{output_2}-{instruction}"),)
    assert filled(prompt, "{output_2}", "{instruction}", "{output_1}") == [
        {"role": "user", "content": "{instruction}-{output_1}-{output_2}"}
    ]


def test_another_prompt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"not the published prompt.*pip install .*==0\.6\.6"):
        EndpointJudge(key_env=None)


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)])
def test_a_missing_package_is_named_at_once(spec: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="not installed: pip install --no-deps alpaca-eval"):
        EndpointJudge(key_env=None)


# -- a judge behind an endpoint -------------------------------------------------------------------


def test_preference_is_the_probability_of_the_candidates_label(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.answer = likes_candidate
    verifier = judge_at(endpoint, tmp_path)
    for problem in PROBLEMS:
        score = verifier.score(problem, "CANDIDATE")
        assert score.preference == pytest.approx(0.75)
        assert (score.correct, score.answer) == (None, "CANDIDATE")
    for problem, question in zip(PROBLEMS, endpoint.questions, strict=True):
        assert candidate_first(question) == swapped(problem.meta["instruction"])


def test_the_request_is_the_published_one(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE")
    (request,) = endpoint.requests
    assert PROBLEMS[0].meta["instruction"] in request["messages"][-1]["content"]
    assert {name: value for name, value in request.items() if name != "messages"} == {
        "model": "fake",
        "temperature": 1,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 5,
    }


def test_neither_label_is_undecided_and_never_asked_again(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.answer = lambda question: {"Both": 0.6, " m": 0.3}
    for _ in range(2):
        score = judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE")
        assert score.value is None
        assert score.reason == "neither m nor M among [' m', 'Both']"
    assert len(endpoint.requests) == 1


def test_equal_outputs_are_a_tie_without_asking(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    verifier = judge_at(endpoint, tmp_path)
    assert verifier.score(PROBLEMS[0], "BASELINE").preference == 0.5
    assert endpoint.requests == []
    verifier.score(PROBLEMS[0], "BASELINE ")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("text", ["", "\0", "half a pair \ud83d", "{output_2}", "x" * 10**6])
def test_any_response_is_judged(endpoint: FakeEndpoint, tmp_path: Path, text: str) -> None:
    score = judge_at(endpoint, tmp_path).score(PROBLEMS[0], text)
    assert (score.preference, score.answer) == (0.5, text)


def test_a_score_names_who_judged(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.model = "fake-2026-11-24"
    endpoint.answer = lambda question: {"m": 0.5, "M": 0.25}
    score = judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE")
    assert score.by == "fake-2026-11-24"
    label = "m" if swapped(PROBLEMS[0].meta["instruction"]) else "M"
    assert score.reason == f"P(m)=0.500, P(M)=0.250, the response is {label}"


def test_judging_models_do_not_share_a_file() -> None:
    assert EndpointJudge(key_env=None).name == "judge"
    local = {"key_env": None, "base_url": "http://localhost:1/v1"}
    names = [EndpointJudge(model=m, **local).name for m in ("gpt-4-1106-preview", "../a b/C.gguf")]
    assert names == ["judge_gpt-4-1106-preview", "judge_..-a-b-C.gguf"]
    assert EndpointJudge(key_env=None, model="gpt-4o").name == "judge_gpt-4o"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_pair_refused_for_its_content_is_undecided(
    endpoint: FakeEndpoint, tmp_path: Path, status: int
) -> None:
    refusal = Reply(status, b'{"error": {"message": "too\\nlong", "code": null}}')
    endpoint.reply = lambda question: refusal if "Do 1 " in question else None
    verifier = judge_at(endpoint, tmp_path, retries=2)
    score = verifier.score(PROBLEMS[1], "CANDIDATE")
    assert (score.value, score.reason, score.by) == (None, f"{status} too long", "fake")
    assert verifier.score(PROBLEMS[2], "CANDIDATE").value == 0.5
    assert len(endpoint.requests) == 2


WITHOUT_LOGPROBS = [
    b'{"choices": [{"logprobs": null}], "usage": null, "model": 3}',
    b'{"choices": [{"logprobs": {"content": []}}]}',
    b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": ["m"], "logprob": 0}]}]}}]}',
    b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "m"}, 3, null]}]}}]}',
    b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "m", "logprob": NaN}]}]}}]}',
]


@pytest.mark.parametrize("body", WITHOUT_LOGPROBS, ids=range(len(WITHOUT_LOGPROBS)))
def test_an_endpoint_that_never_gives_logprobs_ends_judging(
    endpoint: FakeEndpoint, tmp_path: Path, body: bytes
) -> None:
    endpoint.reply = lambda question: Reply(body=body)
    verifier = judge_at(endpoint, tmp_path)
    for problem in PROBLEMS[:2]:
        score = verifier.score(problem, "CANDIDATE")
        assert (score.value, score.reason) == (None, "the endpoint gave no log-probabilities")
    with pytest.raises(CannotScore, match="gives no log-probabilities") as refused:
        verifier.score(PROBLEMS[2], "CANDIDATE")
    assert endpoint.url in str(refused.value)


def test_a_probability_above_one_is_one(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    body = b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "m", "logprob": 999}]}]}}]}'
    endpoint.reply = lambda question: Reply(body=body)
    score = judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE")
    assert score.reason.startswith("P(m)=1.000, P(M)=0.000")


def test_an_endpoint_that_gave_logprobs_may_lack_them_now_and_then(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE")
    endpoint.reply = lambda question: Reply(body=WITHOUT_LOGPROBS[0])
    verifier = judge_at(endpoint, tmp_path)
    verifier.score(PROBLEMS[0], "CANDIDATE")  # from the cache: proof enough
    undecided = [verifier.score(problem, "CANDIDATE") for problem in PROBLEMS[1:6]]
    assert [score.value for score in undecided] == 5 * [None]
    endpoint.reply = lambda question: None
    assert verifier.score(PROBLEMS[1], "CANDIDATE").value == 0.5  # asked again


# -- a stand-in -----------------------------------------------------------------------------------


def test_the_stand_in_averages_both_orders() -> None:
    def ask(text: str, options: Sequence[str]) -> Sequence[float]:
        assert tuple(options) == ("m", "M")
        return (0.9, 0.1) if candidate_first(text) else (0.6, 0.4)

    verifier = StandInJudge(ask=ask, label="toy")
    score = verifier.score(PROBLEMS[0], "CANDIDATE")
    assert score.preference == pytest.approx(0.65)
    assert (score.reason, score.by) == ("0.90/0.40 by order", "stand-in toy")
    assert (verifier.name, verifier.workers) == ("judge_standin", 1)


def test_a_judge_with_a_taste_for_one_label_prefers_nobody() -> None:
    biased = StandInJudge(ask=lambda text, options: (1.0, 0.0))
    assert biased.score(PROBLEMS[0], "CANDIDATE").preference == 0.5


def test_a_question_that_the_stand_in_cannot_hold_is_undecided() -> None:
    def ask(text: str, options: Sequence[str]) -> Sequence[float]:
        raise UserError("too long")

    score = StandInJudge(ask=ask).score(PROBLEMS[0], "CANDIDATE")
    assert (score.value, score.reason, score.by) == (None, "too long", "stand-in")


def test_a_problem_of_another_task_is_refused() -> None:
    for verifier in (StandInJudge(ask=lambda *_: (0.5, 0.5)), EndpointJudge(key_env=None)):
        with pytest.raises(UserError, match="needs 'instruction', which problem 7 lacks"):
            verifier.score(Problem("7", Prompt(""), "5"), "5")
