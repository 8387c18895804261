"""Samplers that choose among an endpoint's responses: by votes, or by the log-probabilities that it gives.

Run: pytest tests/endpoint/test_endpoint_choices.py
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fake_endpoint import served
from fake_model import GOLD, Asking, FakeModel, Likely, Said

from powerbench.cli import main
from powerbench.console import EXIT_BAD_INPUT
from powerbench.types import LOG_ZERO

CHAT = ["task.chat=always", "task.chat=never"]
ONE_BY_ONE = ["limit=1", "model.workers=1"]
"""So that the fake's n-th answer is the sampler's n-th response."""


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    with served(FakeModel()) as fake:
        assert isinstance(fake, FakeModel)
        yield Asking(fake, tmp_path)


def tokens(logps: Sequence[float], gap: float = 1.0) -> list[Likely]:
    """Tokens with these log-probabilities, each beside one that is less likely by `gap`."""
    return [("t", logp, {"t": logp, "u": logp - gap}) for logp in logps]


def among(answers: Sequence[Said]) -> Callable[[str, int], Said]:
    """The n-th of these answers to the n-th request."""
    return lambda question, nth: answers[nth]


@pytest.mark.parametrize("seed", range(3))
def test_a_vote_returns_the_first_response_with_the_winning_answer(
    asking: Asking, seed: int
) -> None:
    given = ["7", "5", None, "5", "7", "5"]
    random.Random(seed).shuffle(given)
    texts = [f"{i}: " + (f"\\boxed{{{x}}}" if x else "none") for i, x in enumerate(given)]
    asking.fake.says = among([Said(text) for text in texts])
    settings = ["sampler=self_consistency", "sampler.n=6", *ONE_BY_ONE]
    (sample,) = asking.samples(*settings)
    assert sample.text == texts[given.index("5")]
    assert sample.cost.decoded == 6 * 20
    assert sample.cost.prefilled == 6 * 50
    assert (sample.length, sample.prompt_tokens) == (20, 50)
    (chosen,) = sample.rounds
    assert chosen.logp == (None,) * 6
    assert chosen.weights == tuple(round(0.2 * (x is not None), 4) for x in given)
    assert not any("logprobs" in request for request in asking.fake.requests)


@pytest.mark.parametrize("chat", CHAT)
@pytest.mark.parametrize(("score", "best"), [("total", "b"), ("per_token", "c")])
def test_best_of_n_chooses_by_the_log_probabilities_that_the_endpoint_gives(
    asking: Asking, chat: str, score: str, best: str
) -> None:
    asking.fake.says = among(
        [
            Said("a", likely=tokens([-2.0, -3.0])),
            Said("b", likely=tokens([-1.0])),
            Said("c", likely=tokens([-0.6, -0.5, -0.4])),
            Said(None, message={"refusal": "no"}) if chat == CHAT[0] else Said(""),
        ]
    )
    settings = ["sampler=best_of_n", "sampler.n=4", f"sampler.score={score}", *ONE_BY_ONE, chat]
    (sample,) = asking.samples(*settings)
    assert sample.text == best
    assert (sample.logp, sample.entropy) == (None, None)
    total = [-5.0, -1.0, -1.5, LOG_ZERO]
    each = [-2.5, -1.0, -0.5, LOG_ZERO]
    (chosen,) = sample.rounds
    assert chosen.weights == pytest.approx(tuple(total if score == "total" else each))
    assert chosen.logp == (None,) * 4
    for request in asking.fake.requests:
        asked = request["logprobs"], request.get("top_logprobs")
        assert asked == ((True, 1) if chat == CHAT[0] else (1, None))


@pytest.mark.parametrize("chat", CHAT)
def test_deepconf_votes_with_the_confidences_that_follow_from_the_likeliest_tokens(
    asking: Asking, chat: str
) -> None:
    """Confidence is minus the mean log-probability of the two likeliest: 3 where they are 2 apart at -2."""
    asking.fake.says = among(
        [
            Said("\\boxed{1}", likely=tokens([-0.1, -0.1], gap=1.0)),
            Said("\\boxed{1} again", likely=tokens([-0.1, -0.1], gap=1.2)),
            Said("\\boxed{2}", likely=tokens([-2.0, -2.0], gap=2.0)),
        ]
    )
    settings = ["sampler=deepconf", "sampler.n=3", "sampler.top_k_confidence=2"]
    (sample,) = asking.samples(
        *settings, "sampler.eta=0.9", "sampler.measure=mean", *ONE_BY_ONE, chat
    )
    assert sample.text == "\\boxed{2}"
    assert asking.fake.requests[0]["logprobs"] == (True if chat == CHAT[0] else 2)
    (chosen,) = sample.rounds
    shares = [0.0, 0.7, 3.0]  # the least confident third is not kept
    assert chosen.weights == pytest.approx([x / 3.7 for x in shares], abs=1e-3)


@pytest.mark.parametrize("sampler", ["best_of_n", "deepconf"])
@pytest.mark.parametrize(
    "likely",
    [None, [], [("t", -1.0, {})], [("t", float("nan"), {"t": -1.0})]],
    ids=["none", "empty", "no likeliest", "not a number"],
)
def test_an_endpoint_without_log_probabilities_names_the_samplers_that_need_none(
    asking: Asking,
    sampler: str,
    likely: list[Likely] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asking.fake.says = lambda question, nth: Said("5", likely=likely)
    command = asking.command(f"sampler={sampler}", "sampler.n=2", *ONE_BY_ONE)
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("powerbench: ") == 1
    assert "gives no log-probabilities: choose one that does, or a sampler that needs none" in said
    assert said.endswith(": base, greedy, low_temp, self_consistency\n")


def test_a_vote_of_refusals_is_a_response_without_an_answer(asking: Asking) -> None:
    asking.fake.says = lambda question, nth: Said(None, message={"refusal": "no"})
    for sampler in ("self_consistency", "deepconf", "best_of_n"):
        there = Asking(asking.fake, asking.folder / sampler)
        (sample,) = there.samples(f"sampler={sampler}", "sampler.n=3", "limit=1")
        assert (sample.text, sample.finish_reason) == ("", "refused")


def test_a_refusal_is_no_choice_where_nothing_has_a_vote(asking: Asking) -> None:
    refusal, unsure = Said(None, message={"refusal": "no"}), Said("hm", likely=tokens([-2.0]))
    asking.fake.says = among([refusal, unsure, refusal])
    (sample,) = asking.samples("sampler=deepconf", "sampler.n=3", *ONE_BY_ONE)
    assert sample.text == "hm"


def test_the_voters_read_the_text_that_was_answered(asking: Asking) -> None:
    samples = asking.samples("sampler=self_consistency", "sampler.n=2")
    by_problem = {sample.problem: sample.text for sample in samples}
    assert len(by_problem) == 3
    assert {text.partition(": ")[2] for text in by_problem.values()} == {
        f"\\boxed{{{gold}}}" for gold in GOLD.values()
    }
