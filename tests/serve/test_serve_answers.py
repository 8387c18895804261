"""What the server answers: identity and seeds, stop strings, log-probabilities, settings, cost.

Run: pytest tests/serve/test_serve_answers.py
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import CHAT, Served, served

from powerbench.chains.runner import run_one
from powerbench.config import compose, options
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.common import Response
from powerbench.serve.choosing import blocks
from powerbench.serve.logprobs import RecordedOutcome, recorded
from powerbench.types import Chain, Extend, Together

DRAWN = [
    name
    for name in options("sampler")
    if "deepconf" not in name and name not in ("self_consistency", "aps")
]
SMALL = {
    "power_smc": {"particles": 4},
    "ccps": {"particles": 4, "select": "draw", "stop_at_answer": False},
    "scalable_power": {"candidates": 4, "kept": 2, "rollouts": 2},
}


@pytest.fixture(scope="module")
def toy() -> Iterator[Served]:
    with served() as here:
        yield here


def test_a_seed_fixes_the_answer_whatever_else_runs(toy: Served) -> None:
    alone = toy.texts(prompt="abc", seed=5)
    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(toy.texts, prompt="abc", seed=i) for i in range(60)]
        assert pool.submit(toy.texts, prompt="abc", seed=5).result() == alone
    assert others[5].result() == alone
    assert len({other.result()[0] for other in others}) > 10


def test_without_a_seed_each_answer_is_its_own_and_says_its_seed(toy: Served) -> None:
    first, second = (toy.post(prompt="abc").json() for _ in range(2))
    seeds = [each["powerbench"]["seed"] for each in (first, second)]
    assert seeds[0] != seeds[1]
    assert toy.texts(prompt="abc", seed=seeds[0]) == [first["choices"][0]["text"]]


def test_n_answers_are_replicates(toy: Served) -> None:
    answers = toy.texts(prompt="abc", seed=1, n=3)
    assert len(set(answers)) > 1
    for i, answer in enumerate(answers):
        assert toy.texts(prompt="abc", seed=1, replicate=i) == [answer]


def test_several_prompts_are_answered_in_order_as_text_or_tokens(toy: Served) -> None:
    prompts = ["abc", "bca"]
    together = toy.texts(prompt=prompts, seed=1, n=2)
    apart = [text for prompt in prompts for text in toy.texts(prompt=prompt, seed=1, n=2)]
    assert together == apart
    ids = [list(toy.service.prompts.of_text(prompt)[0]) for prompt in prompts]
    assert toy.texts(prompt=ids, seed=1, n=2) == together
    assert toy.texts(prompt=ids[1], seed=1, n=2) == together[2:]


def test_a_conversation_is_answered_by_the_same_chain_as_its_tokens(toy: Served) -> None:
    assert toy.texts(messages=CHAT["messages"], seed=3) == toy.texts(prompt="abc", seed=3)
    parts = [{"role": "user", "content": [{"type": "text", "text": "abc"}]}]
    assert toy.texts(messages=parts, seed=3) == toy.texts(prompt="abc", seed=3)


def test_a_stop_string_of_one_token_ends_the_chain_and_a_longer_one_cuts_the_text(
    toy: Served,
) -> None:
    asked = {"prompt": "abc", "seed": 0, "sampler": "base"}
    plain = next(
        (seed, text)
        for seed in range(100)
        if len(text := toy.texts(**{**asked, "seed": seed})[0]) > 6 and text[3] not in text[:3]
    )
    asked["seed"], text = plain
    cut = toy.post(**asked, stop=text[2:4]).json()["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (text[: text.index(text[2:4])], "stop")
    ended = toy.post(**asked, stop=["zz", text[3]]).json()
    assert ended["choices"][0]["text"] == text[:3]
    assert ended["choices"][0]["finish_reason"] == "stop"
    assert ended["usage"]["decoded_tokens"] == 4


def test_the_finish_reason_is_length_at_max_tokens(toy: Served) -> None:
    reasons = {
        toy.post(prompt="abc", seed=i, max_tokens=3, sampler="base").json()["choices"][0][
            "finish_reason"
        ]
        for i in range(30)
    }
    assert reasons == {"length", "stop"}


@pytest.mark.parametrize("top", [0, 3])
@pytest.mark.parametrize("name", DRAWN)
def test_logprobs_are_the_models_and_change_no_answer(toy: Served, name: str, top: int) -> None:
    asked = {"prompt": "ab", "seed": 4, "sampler": {"name": name, **SMALL.get(name, {})}}
    plain, shown = toy.post(**asked).json(), toy.post(**asked, logprobs=top).json()
    (choice,), (same,) = shown["choices"], plain["choices"]
    assert choice["text"] == same["text"]
    assert same["logprobs"] is None
    found = choice["logprobs"]
    assert math.isclose(sum(found["token_logprobs"]), choice["powerbench"]["logp"], rel_tol=1e-9)
    (prompt,) = toy.service.prompts.of_text("ab")
    letters = "".join(found["tokens"])
    tokens = [ord(letter) - 96 for letter in letters]
    for i, logp in enumerate(found["token_logprobs"][: len(tokens)]):
        p = toy.service.model.p((*prompt, *tokens[:i]))  # type: ignore[attr-defined]
        assert math.isclose(logp, math.log(p[tokens[i]]), rel_tol=1e-9)
        best = max(found["top_logprobs"][i].values())
        assert math.isclose(best, math.log(p.max() if top else p[tokens[i]]), rel_tol=1e-9)
    assert found["text_offset"][: len(letters)] == list(range(len(letters)))


def test_a_recorded_chain_sees_what_it_asked_for() -> None:
    """As many of the likeliest tokens, though more are recorded."""
    seen = []

    def chain() -> Chain:
        (first,) = yield Together((Extend(("a",), (), 0, 2, (), top_logprobs=2),))
        x = Response().then(first)
        second = yield Extend(("b",), x.tokens, 1, 4, ())
        seen.extend([first, second])
        return x.then(second, keep=1).outcome()

    factory, stream = recorded(lambda state=None, /: chain(), 5), Stream(0, "", "", 0)
    outcome = run_one(factory, (1,), stream, ToyEngine(TabularModel(vocabulary=8)))
    assert isinstance(outcome, RecordedOutcome)
    assert [len(top.tokens) for top in seen[0].top_logprobs] == [2, 2]
    assert seen[1].top_logprobs == ()
    assert [len(each.top.tokens) for each in outcome.logprobs] == [5] * 4
    logp = [*seen[0].logp[:1], *seen[1].logp]
    assert [each.logp for each in outcome.logprobs] == logp


def test_a_prompt_is_scored_where_it_is_echoed(toy: Served) -> None:
    ids = [1, 3, 2, 2, 5]
    body = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "sampler": "greedy"}
    response = toy.post(**body, temperature=0).json()
    found = response["choices"][0]["logprobs"]
    assert response["choices"][0]["text"].startswith("acbbe")
    assert found["token_logprobs"][0] is None
    for i in range(1, 5):
        p = toy.service.model.p(tuple(ids[:i]))  # type: ignore[attr-defined]
        assert math.isclose(found["token_logprobs"][i], math.log(p[ids[i]]), rel_tol=1e-9)
        assert math.isclose(max(found["top_logprobs"][i].values()), math.log(p.max()), rel_tol=1e-9)
    assert len(found["tokens"]) == 6  # one is generated
    assert found["text_offset"][:5] == [0, 1, 2, 3, 4]


def test_a_chats_logprobs_have_the_likeliest_tokens(toy: Served) -> None:
    body = {"messages": CHAT["messages"], "seed": 2, "logprobs": True, "top_logprobs": 2}
    choice = toy.post(**body).json()["choices"][0]
    found = choice["logprobs"]["content"]
    assert math.isclose(sum(t["logprob"] for t in found), choice["powerbench"]["logp"])
    assert all(len(t["top_logprobs"]) == 2 for t in found)
    assert "".join(t["token"] for t in found) == choice["message"]["content"]


def test_usage_says_what_answers_cost(toy: Served) -> None:
    usage = toy.post(prompt="abc", seed=1, n=3).json()["usage"]
    assert usage["prompt_tokens"] == 3
    assert usage["total_tokens"] == 3 + usage["completion_tokens"]
    assert usage["rejected_tokens"] > 0
    assert usage["decoded_tokens"] == usage["completion_tokens"] + usage["rejected_tokens"]
    assert usage["passes"] == usage["decoded_tokens"]  # nothing is drafted
    cheap = toy.post(prompt="abc", seed=1, sampler="base").json()["usage"]
    assert cheap["decoded_tokens"] == cheap["completion_tokens"]


@pytest.mark.parametrize(
    ("sampler", "temperature", "expected"),
    [
        ("power", 0.25, {"alpha": 4.0}),
        ("power", 0.5, {"alpha": 2.0}),
        ({"name": "power", "alpha": 2}, 0.5, {"alpha": 2}),
        ("low_temp", 0.5, {"temperature": 0.5}),
        ("best_of_n", 0.8, {"temperature": 0.8}),
        ("greedy", 0, {}),
        ("base", 1, {}),
    ],
)
def test_a_temperature_is_mapped(
    toy: Served, sampler: object, temperature: float, expected: dict[str, float]
) -> None:
    response = toy.post(prompt="abc", sampler=sampler, temperature=temperature)
    assert response.status_code == 200, response.text
    made = response.json()["powerbench"]["sampler"]
    assert {key: made[key] for key in expected} == expected


def test_settings_of_a_request_are_used(toy: Served) -> None:
    body = {"prompt": "abc", "seed": 1, "sampler": {"name": "power", "steps": 0}}
    response = toy.post(**body).json()
    assert response["usage"]["rejected_tokens"] == 0
    assert response["powerbench"]["sampler"]["steps"] == 0


def test_blocks_are_as_many_as_divide_max_tokens(toy: Served) -> None:
    assert [blocks(n, 16) for n in (3072, 100, 101, 8)] == [16, 10, 1, 8]
    made = toy.post(prompt="abc", max_tokens=4).json()["powerbench"]["sampler"]
    assert (made["max_tokens"], made["blocks"]) == (4, 2)


def test_the_other_settings_of_the_command_hold_for_all_samplers() -> None:
    with served("sampler=power_official", "without=top_k", "sampler.steps=2", "alpha=3") as here:
        own = here.post(prompt="abc").json()["powerbench"]["sampler"]
        assert (own["name"], own["top_k"], own["steps"]) == ("power_official", None, 2)
        other = here.post(prompt="abc", sampler="power").json()["powerbench"]["sampler"]
        assert (other["alpha"], other["steps"]) == (3, 4)


def test_a_sampler_that_votes_reads_the_answers_of_the_tasks_prompts(toy: Served) -> None:
    """The toy's prompts are the last three letters, so that the task's are one prompt."""
    task = toy.service.prompts.task.problems("base")[0].prompt.text
    asked = {"seed": 1, "sampler": {"name": "self_consistency", "n": 4}}
    response = toy.post(prompt=task, **asked)
    assert response.status_code == 200, response.text
    assert response.json()["powerbench"]["task"] == "math_mini"
    refused = toy.post(prompt="abc", **asked)
    assert refused.status_code == 400
    assert "votes on answers" in refused.json()["error"]["message"]


def test_the_models_are_listed(toy: Served) -> None:
    listed = toy.client.get("/v1/models").json()["data"]
    assert [each["id"] for each in listed] == ["toy"]
    assert listed[0]["samplers"] == sorted(options("sampler"))
    assert toy.client.get("/v1/models/toy").json()["sampler"] == "power"
    assert toy.client.get("/v1/models/gpt").status_code == 404
    assert compose([]).choices["sampler"] == "power"


def test_metrics_count_tokens_and_chains() -> None:
    with served() as here:
        usage = here.post(prompt="abc", seed=1, n=2).json()["usage"]
        assert here.number("tokens_total", kind="decoded") == usage["decoded_tokens"]
        assert here.number("tokens_total", kind="completion") == usage["completion_tokens"]
        assert here.number("chains_total", sampler="power", end="completed") == 2
        text = here.client.get("/metrics").text
        assert "powerbench_chains_waiting 0.0" in text
        path, status = "/v1/completions", "200"
        assert here.number("requests_total", path=path, status=status) == 1
