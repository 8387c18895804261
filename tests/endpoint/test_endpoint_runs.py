"""Runs with model=endpoint: what is asked, what is stored, what stays empty, and what is never paid twice.

Run: pytest tests/endpoint/test_endpoint_runs.py
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_endpoint import Reply, served
from fake_model import GOLD, PROBLEMS, Asking, FakeModel, Said

from powerbench.cli import main
from powerbench.console import EXIT_BAD_INPUT
from powerbench.store import find_runs
from powerbench.store.verify import verify
from powerbench.types import FinishReason

PRICES = ["model.price_prompt=2", "model.price_completion=8"]
ONE = (50 * 2 + 20 * 8) / 1e6
"""Dollars for one answer of the fake."""


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    with served(FakeModel()) as fake:
        assert isinstance(fake, FakeModel)
        yield Asking(fake, tmp_path)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == EXIT_BAD_INPUT
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("powerbench: ")]
    assert len(said) == 1
    return said[0]


# -- what is asked and stored -----------------------------------------------------------------------


def test_what_the_endpoint_says_is_stored_and_what_it_cannot_know_is_empty(asking: Asking) -> None:
    usage = {
        "prompt_tokens": 50,
        "completion_tokens": 20,
        "completion_tokens_details": {"reasoning_tokens": 12},
    }
    asking.fake.says = lambda question, nth: Said(
        f"\\boxed{{{GOLD[question]}}}", message={"reasoning_content": "Let me think."}, usage=usage
    )
    run = asking.run(*PRICES, "max_tokens=77")
    for sample in run.stream():
        assert (sample.tokens, sample.logp, sample.entropy) == ((), None, None)
        assert sample.finish_reason is FinishReason.STOP
        assert (sample.length, sample.prompt_tokens) == (20, 50)
        said, cost = sample.reported, sample.cost
        assert said is not None
        assert (said.model, said.reasoning) == ("vendor/thinker", "Let me think.")
        assert "think" not in sample.text
        assert (said.tokens, said.reasoning_tokens, said.refusal) == (20, 12, None)
        assert (cost.decoded, cost.prefilled, cost.attended) == (20, 50, None)
        assert cost.dollars == pytest.approx(ONE)
        assert said.dollars == pytest.approx(ONE)
    assert run.metrics["value"][0] == 1.0
    assert run.metrics["dollars"] == pytest.approx(3 * ONE)
    assert (run.metrics["logp"], run.metrics["confidence"], run.metrics["flops"]) == (None,) * 3
    health = verify(run)
    assert (health.samples, health.found) == (3, ())
    for request in asking.fake.requests:
        assert request["model"] == "vendor/thinker"
        assert request["max_tokens"] == 77
        assert request.keys() == {"model", "messages", "max_tokens", "temperature", "stop"}
    assert asking.fake.keys == ["Bearer none"] * 3


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [
        (["sampler=greedy"], 0),
        (["sampler=base"], 1),
        (["sampler=low_temp"], 0.25),
        (["sampler=self_consistency", "sampler.n=1"], 0.7),
    ],
)
def test_the_temperature_is_the_samplers(
    asking: Asking, settings: list[str], temperature: float
) -> None:
    asking.run(*settings, "limit=1")
    (request,) = asking.fake.requests
    assert request["temperature"] == temperature


def test_prompts_go_where_the_task_sends_them(asking: Asking) -> None:
    """A chat turn to /chat/completions, raw text to /completions."""
    asking.samples("task.chat=never", "limit=1")
    (request,) = asking.fake.requests
    assert request["prompt"] in GOLD
    assert "messages" not in request


def test_task_stops_and_options_are_sent(asking: Asking) -> None:
    options = ["+model.options.reasoning_effort=high", "+model.options.temperature=null"]
    asking.run("task.stop_tokens=[END]", "model.length_field=max_completion_tokens", *options)
    assert asking.fake.requests[0] == {
        "model": "vendor/thinker",
        "messages": asking.fake.requests[0]["messages"],
        "max_completion_tokens": 64,
        "stop": ["END", "\n"],
        "reasoning_effort": "high",
    }


def test_a_few_shot_solution_of_a_set_of_ones_own_ends_with_its_line(
    asking: Asking, tmp_path: Path
) -> None:
    (tmp_path / "own.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    own = ["task=math_set", f"task.path={tmp_path / 'own.jsonl'}", "task.prompt_style=few_shot"]
    asking.fake.says = lambda question, nth: Said("\\boxed{2}")
    asking.run(*own, "limit=1")
    (request,) = asking.fake.requests
    assert request["stop"] == ["\n"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Said("whole", "stop"), (FinishReason.STOP, "whole", None)),
        (Said("cut", "length"), (FinishReason.LENGTH, "cut", None)),
        (Said("part", "content_filter"), (FinishReason.REFUSED, "part", None)),
        (
            Said(None, "stop", {"refusal": "I'm sorry."}),
            (FinishReason.REFUSED, "", "I'm sorry."),
        ),
        (Said("odd", None), (FinishReason.UNKNOWN, "odd", None)),
        (Said("odd", "tool_calls"), (FinishReason.UNKNOWN, "odd", None)),
    ],
)
def test_how_a_response_ended_is_recorded(
    asking: Asking, said: Said, expected: tuple[FinishReason, str, str | None]
) -> None:
    asking.fake.says = lambda question, nth: said
    (sample,) = asking.samples("limit=1")
    assert sample.reported is not None
    assert (sample.finish_reason, sample.text, sample.reported.refusal) == expected


def test_a_refused_prompt_is_a_sample_with_the_endpoints_words(asking: Asking) -> None:
    flagged = b'{"error": {"message": "flagged by moderation", "code": "content_filter"}}'
    first = PROBLEMS[0].prompt.text
    asking.fake.reply = lambda question: Reply(400, flagged) if question == first else None
    run = asking.run(*PRICES)
    sample = run.samples()[PROBLEMS[0].id, 0]
    assert sample.finish_reason is FinishReason.REFUSED
    assert sample.reported is not None
    assert sample.reported.refusal == "400 flagged by moderation"
    assert (sample.text, sample.length, sample.cost.dollars) == ("", 0, 0.0)
    assert run.metrics["refused"] == pytest.approx(1 / 3)
    assert run.metrics["value"][0] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "message", "answer", "reasoning"),
    [
        ("<think>\nhm\n</think>\n\n5", {}, "5", "hm"),
        ("hm\n</think>5", {}, "5", "hm"),
        ("<think>never done", {}, "", "never done"),
        ("5", {"reasoning": "hm"}, "5", "hm"),
        ("<think>5", {"reasoning_content": "hm"}, "<think>5", "hm"),
        ("5", {"reasoning_content": ""}, "5", None),
        ("I <think> so", {}, "I <think> so", None),
    ],
)
def test_reasoning_is_apart_from_the_answer(
    asking: Asking, text: str, message: dict[str, str], answer: str, reasoning: str | None
) -> None:
    asking.fake.says = lambda question, nth: Said(text, message=message)
    (sample,) = asking.samples("limit=1")
    assert sample.reported is not None
    assert (sample.text, sample.reported.reasoning) == (answer, reasoning)


def test_without_prices_there_is_no_bill_in_dollars(asking: Asking) -> None:
    run = asking.run()
    assert {sample.cost.dollars for sample in run.stream()} == {None}
    assert run.metrics["dollars"] is None
    assert run.metrics["decoded"] == 60


def test_the_key_is_sent_and_written_nowhere(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-secret-1")
    asking.run("model.key_env=THEIR_KEY")
    assert set(asking.fake.keys) == {"Bearer sk-secret-1"}
    files = [file for file in asking.folder.rglob("*") if file.is_file()]
    assert any(file.name == "answers.sqlite" for file in files)
    assert not [file for file in files if b"sk-secret-1" in file.read_bytes()]


# -- never paid twice -------------------------------------------------------------------------------


def test_replicates_are_asked_for_one_by_one_and_a_command_repeated_asks_nothing(
    asking: Asking,
) -> None:
    samples = asking.samples("replicates=3")
    texts = {(sample.problem, sample.text) for sample in samples}
    assert len(texts) == len(samples) == 9
    assert asking.samples("replicates=3") == samples
    assert asking.fake.answered == 9


def test_what_was_answered_is_found_again_by_another_run_folder(asking: Asking) -> None:
    first = asking.samples("replicates=2", *PRICES)
    again = Asking(asking.fake, asking.folder / "elsewhere")
    cache = f"model.cache={asking.folder / 'cache'}"
    second = again.samples("replicates=2", cache, *PRICES)
    assert [s.text for s in second] == [s.text for s in first]
    assert [s.cost.dollars for s in second] == [s.cost.dollars for s in first]
    assert asking.fake.answered == 6


def test_a_run_that_an_endpoint_stops_goes_on_without_paying_again(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    asking.fake.reply = lambda question: Reply(401) if asking.fake.answered >= 5 else None
    vote = ["sampler=self_consistency", "sampler.n=4", "model.workers=1"]
    said = refused(asking.command(*vote), capsys)
    assert f"the endpoint at {asking.fake.url} gave no answer in 1 attempt: 401" in said
    assert "model.key_env to a valid key, and repeat the command: what is answered is kept" in said
    (run,) = find_runs([asking.folder / "runs"])
    assert len(run.samples()) == 1
    asking.fake.reply = lambda question: None
    samples = asking.samples(*vote)
    assert asking.fake.answered == 3 * 4
    assert [sample.cost.decoded for sample in samples] == [4 * 20] * 3


def test_a_killed_run_goes_on_without_paying_again(asking: Asking) -> None:
    command = asking.command("sampler=self_consistency", "sampler.n=4", "model.workers=1")
    process: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        if len(asking.fake.requests) == 7:
            os.kill(process[0].pid, signal.SIGKILL)

    asking.fake.on_request = kill
    process.append(subprocess.Popen([sys.executable, "-m", "powerbench.cli", *command]))
    assert process[0].wait(120) == -signal.SIGKILL
    lost = asking.fake.answered - 6  # the seventh answer comes too late, if it is still given
    assert lost in (0, 1)
    main(command)
    (run,) = find_runs([asking.folder / "runs"])
    assert len(run.samples()) == 3
    assert asking.fake.answered == 3 * 4 + lost


def test_a_budget_ends_a_run_before_it_is_exceeded(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    most = (200 * 2 + 64 * 8) / 1e6  # what an answer is expected to cost before it comes, at most
    settings = [*PRICES, "model.workers=1", f"model.budget={ONE + most}", "replicates=9"]
    said = refused(asking.command(*settings), capsys)
    assert f"model.budget={ONE + most:g} would be exceeded" in said
    assert 0 < asking.fake.answered * ONE <= ONE + most
    paid = asking.fake.answered
    asking.samples(*PRICES, "replicates=9")
    assert paid < asking.fake.answered == 27


# -- failures ---------------------------------------------------------------------------------------


def test_failures_that_pass_are_waited_for(asking: Asking) -> None:
    failures = [Reply(500), Reply(429, headers={"Retry-After": "0"}), Reply(drop=True), Reply(503)]
    overloaded = b'{"choices": [{"finish_reason": "insufficient_system_resource"}]}'
    failures += [Reply(body=overloaded), Reply(body=b"<html>")]
    asking.fake.reply = lambda question: failures.pop() if failures else None
    samples = asking.samples("model.retries=6", "model.workers=1")
    assert len(samples) == 3
    assert len(asking.fake.requests) == 3 + 6


def test_a_request_that_is_not_answered_in_time_is_sent_again(asking: Asking) -> None:
    asking.fake.may_answer.clear()
    asking.fake.on_request = lambda: (
        asking.fake.may_answer.set() if len(asking.fake.requests) > 1 else None
    )
    settings = ["limit=1", "model.retries=3", "model.timeout=1"]
    assert len(asking.samples(*settings)) == 1
    assert len(asking.fake.requests) > 1


def test_a_run_with_several_requests_under_way_loses_none_when_one_fails(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    """The requests under way come to their end, and are found again."""
    first = PROBLEMS[0].prompt.text

    def reply(question: str) -> Reply | None:
        if question == first:
            return Reply(404, b'{"error": {"message": "no such model", "code": "model_not_found"}}')
        return None

    asking.fake.reply = reply
    said = refused(asking.command("model.workers=3"), capsys)
    assert "404 no such model; see that model.base_url" in said
    assert "and model.id are right" in said
    paid = asking.fake.answered
    asking.fake.reply = lambda question: None
    assert len(asking.samples("model.workers=3")) == 3
    assert asking.fake.answered == 3 >= paid


def test_an_endpoint_that_is_gone_is_named(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = "model.base_url=http://127.0.0.1:9/v1"
    said = refused(asking.command(gone), capsys)
    assert "the endpoint at http://127.0.0.1:9/v1 gave no answer in 1 attempt" in said
    assert "see that it runs, and that model.base_url is right" in said


def test_raw_text_at_an_endpoint_that_only_chats_names_the_setting(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    asking.fake.reply = lambda question: Reply(404)
    assert "task.chat=always" in refused(asking.command("task.chat=never"), capsys)


def test_an_endpoint_without_usage_is_refused(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    asking.fake.says = lambda question, nth: Said("5", usage=None)
    said = refused(asking.command(), capsys)
    assert "does not say how many tokens its answer took (usage)" in said


def test_a_response_that_is_too_long_names_the_setting(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    error = b'{"error": {"message": "m", "code": "context_length_exceeded"}}'
    asking.fake.reply = lambda question: Reply(400, error)
    votes = ["sampler=self_consistency", "sampler.n=16", "model.workers=1", "limit=1"]
    said = refused(asking.command(*votes), capsys)
    assert "a response of 64 tokens are too long for thinker" in said
    assert "set a smaller max_tokens" in said
    assert len(asking.fake.requests) < 16  # what has not been asked by then is not asked any more


WEIGHTLESS = "base, best_of_n, deepconf, greedy, low_temp, self_consistency"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["sampler=power"], f"alone: choose one of {WEIGHTLESS}"),
        (["sampler=deepconf_online"], f"alone: choose one of {WEIGHTLESS}"),
        (["sampler.top_k=50"], "sampler.top_k is nothing that an endpoint can be asked for"),
        (["model.key_env=NO_KEY_HERE"], "the environment variable NO_KEY_HERE is not set"),
        (["model.base_url=example.org"], "model.base_url must be http(s)://host/..., got"),
        (["model.base_url=http://me:pw@host/v1"], "must not hold a name or password"),
        (["model.budget=5"], "model.budget needs prices: set model.price_prompt"),
        (["model.workers=0"], "model.workers must be an integer >= 1, got 0"),
        (["model.id=' '"], "model.id must name a model as the endpoint knows it"),
        (["model.length_field=longest"], "model.length_field must be one of max_tokens, max_c"),
        (["+model.options.n=4"], "model.options must not set n"),
        (["+model.options.temperature=0.5"], "model.options must not set temperature"),
        (["engine=hf"], "engine=hf cannot drive model=endpoint: leave engine=... away"),
        (["verifier=judge_standin", "task=instructions_mini"], "takes another model"),
    ],
)
def test_bad_input_is_one_line(
    asking: Asking, settings: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(asking.command(*settings), capsys)
    assert not asking.fake.requests


def test_no_temperature_is_possible_at_temperature_one_alone(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["+model.options.temperature=null", "sampler=low_temp"]
    said = refused(asking.command(*settings), capsys)
    assert "this sampler needs temperature 0.25" in said
    assert not asking.fake.requests


def test_a_missing_base_url_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["run", "model=endpoint", "model.id=a/b"], capsys)
    assert "model.base_url has no value: add model.base_url=... to the command" in said


def test_a_local_model_has_no_use_for_the_endpoints_engine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(["run", "model=smollm2-135m", "engine=endpoint", "tracker=none"], capsys)
    assert "engine=endpoint cannot drive model=smollm2-135m" in said
