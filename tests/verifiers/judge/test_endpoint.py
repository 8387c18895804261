"""Asking an endpoint: how fast, how often after a failure, what it costs, and what is never paid twice.

Run: pytest tests/verifiers/judge/test_endpoint.py
"""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from email.utils import formatdate
from pathlib import Path

import pytest
from fake_endpoint import (
    DEADLINE,
    PROBLEMS,
    FakeEndpoint,
    Reply,
    judge_at,
    served,
    wait_until,
)

from powerbench.errors import UserError
from powerbench.models.endpoint import answer_cache
from powerbench.models.endpoint.answer_cache import Answers
from powerbench.models.endpoint.budget import RateLimit
from powerbench.models.endpoint.failures import CannotAsk, retry_after
from powerbench.types import Problem, Score
from powerbench.verifiers.common import CannotScore
from powerbench.verifiers.judge import EndpointJudge
from powerbench.verifiers.judge.answer import Answer

ANSWER = Answer({"m": -0.5, "\ud83d": -1.0}, "fake", 500, 1, 0.0)
COST = (400 * 10 + 1 * 30) / 1e6
"""Dollars for one answer of the fake, at the prices of the default judge."""


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with served(FakeEndpoint()) as fake:
        yield fake


def score_all(
    verifier: EndpointJudge, problems: Sequence[Problem] = PROBLEMS, text: str = "CANDIDATE"
) -> list[Future[Score]]:
    """Score from as many threads as the verifier takes; all have ended on return."""
    with ThreadPoolExecutor(verifier.workers) as pool:
        scores = [pool.submit(verifier.score, problem, text) for problem in problems]
        ended(verifier, scores)
    return scores


def ended(verifier: EndpointJudge, scores: Sequence[Future[Score]]) -> None:
    """Fail the test if a thread waits in vain."""
    if wait(scores, DEADLINE).not_done:
        verifier.close()
        pytest.fail("a thread waits in vain")


def decided(scores: Sequence[Future[Score]]) -> int:
    return sum(s.exception() is None and s.result().value is not None for s in scores)


def failure(scores: Sequence[Future[Score]]) -> str:
    """The one thing that all failures say."""
    errors = [score.exception() for score in scores]
    assert all(error is None or isinstance(error, CannotScore) for error in errors)
    (said,) = {str(error) for error in errors if error is not None}
    assert "\n" not in said
    return said


# -- how fast -------------------------------------------------------------------------------------


def test_requests_are_under_way_at_once(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.may_answer.clear()
    verifier = judge_at(endpoint, tmp_path, workers=6)
    with ThreadPoolExecutor(verifier.workers) as pool:
        scores = [pool.submit(verifier.score, problem, "CANDIDATE") for problem in PROBLEMS]
        wait_until(lambda: endpoint.under_way == 6)
        endpoint.may_answer.set()
    assert decided(scores) == len(PROBLEMS)


def test_requests_keep_to_the_rate(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    began = time.monotonic()
    score_all(judge_at(endpoint, tmp_path, requests_per_minute=600), PROBLEMS[:6])
    assert time.monotonic() - began >= 5 * 60 / 600
    assert len(endpoint.requests) == 6


def test_repetitions_keep_to_the_rate_too(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda question: Reply(503) if len(endpoint.requests) < 6 else None
    began = time.monotonic()
    verifier = judge_at(endpoint, tmp_path, requests_per_minute=600, retries=5)
    assert verifier.score(PROBLEMS[0], "CANDIDATE").value == 0.5
    assert time.monotonic() - began >= 5 * 60 / 600


# -- after a failure ------------------------------------------------------------------------------


def test_a_transient_failure_is_retried(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    failures = [Reply(500), Reply(429), Reply(drop=True), Reply(503), Reply(408), Reply(529)]
    endpoint.reply = lambda question: failures.pop() if failures else None
    assert judge_at(endpoint, tmp_path, retries=6).score(PROBLEMS[0], "CANDIDATE").value == 0.5
    assert len(endpoint.requests) == 7


def test_a_request_that_is_not_answered_in_time_is_sent_again(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.may_answer.clear()
    verifier = judge_at(endpoint, tmp_path, timeout=0.3, retries=0)
    with pytest.raises(CannotScore, match=r"no answer in 0\.3 s"):
        verifier.score(PROBLEMS[0], "CANDIDATE")
    endpoint.may_answer.set()
    verifier = judge_at(endpoint, tmp_path, timeout=0.3, retries=1000)
    assert verifier.score(PROBLEMS[0], "CANDIDATE").value == 0.5


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (429, b'{"error": {"message": "over\\nloaded"}}', "429 over loaded"),
        (500, b'{"error": "no memory"}', "500 no memory"),
        (500, b'{"detail": "no memory"}', "500 no memory"),
        (503, b"<html>\nno\n</html>", "503 Service Unavailable"),
        (503, b"", "503 Service Unavailable"),
    ],
)
def test_a_failure_that_persists_ends_judging(
    endpoint: FakeEndpoint, tmp_path: Path, status: int, body: bytes, said: str
) -> None:
    endpoint.reply = lambda question: Reply(status, body)
    with pytest.raises(CannotScore) as ended:
        judge_at(endpoint, tmp_path, retries=2).score(PROBLEMS[0], "CANDIDATE")
    assert str(ended.value) == (
        f"the judge at {endpoint.url} gave no answer in 3 attempts: {said}; "
        f"see that it works, and repeat the command: what is judged is kept"
    )
    assert len(endpoint.requests) == 3


def test_an_endpoint_that_is_not_there_ends_judging(tmp_path: Path) -> None:
    nowhere = FakeEndpoint(url="http://127.0.0.1:1/v1")
    with pytest.raises(CannotScore, match=r"refused; see that it runs, .*verifier\.base_url") as e:
        judge_at(nowhere, tmp_path, retries=1).score(PROBLEMS[0], "CANDIDATE")
    assert f"{nowhere.url} gave no answer in 2 attempts" in str(e.value)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, r"verifier\.key_env to a valid key"),
        (402, "see to that"),
        (403, "allowed to use"),
        (404, r"verifier\.base_url .* and verifier\.model are right"),
    ],
)
def test_what_the_user_must_fix_ends_judging_at_once(
    endpoint: FakeEndpoint, tmp_path: Path, status: int, remedy: str
) -> None:
    endpoint.reply = lambda question: Reply(status, b"<html>\nno\n</html>")
    with pytest.raises(CannotScore, match=f"in 1 attempt: {status} .*; .*{remedy}"):
        judge_at(endpoint, tmp_path, retries=5).score(PROBLEMS[0], "CANDIDATE")
    assert len(endpoint.requests) == 1


def test_an_empty_account_is_no_rate_limit(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    body = b'{"error": {"message": "quota", "code": "insufficient_quota"}}'
    endpoint.reply = lambda question: Reply(429, body)
    with pytest.raises(CannotScore, match="in 1 attempt: 429 quota"):
        judge_at(endpoint, tmp_path, retries=5).score(PROBLEMS[0], "CANDIDATE")


def test_the_endpoint_is_left_alone_for_as_long_as_it_asks(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    busy = Reply(429, headers={"retry-after-ms": "400"})
    endpoint.reply = lambda question: busy if len(endpoint.requests) == 1 else None
    began = time.monotonic()
    assert judge_at(endpoint, tmp_path, retries=1).score(PROBLEMS[0], "CANDIDATE").value == 0.5
    assert time.monotonic() - began >= 0.4


def test_a_pause_is_for_all() -> None:
    rate_limit = RateLimit(interval=0.0, budget=None, names=EndpointJudge.names)
    began = time.monotonic()
    rate_limit.pause(0.3)
    rate_limit.pause(0.1)
    rate_limit.take_turn()
    assert time.monotonic() - began >= 0.3


def test_the_wait_doubles_up_to_the_longest_wait(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(RateLimit, "wait", lambda rate_limit, seconds: waits.append(seconds))
    monkeypatch.setattr(RateLimit, "take_turn", lambda rate_limit: None)
    endpoint.reply = lambda question: Reply(503)
    settings = {"retries": 6, "backoff": 1.0, "longest_wait": 4.0}
    with pytest.raises(CannotScore):
        judge_at(endpoint, tmp_path, **settings).score(PROBLEMS[0], "CANDIDATE")
    for seconds, longest in zip(waits, (1, 2, 4, 4, 4, 4), strict=True):
        assert longest / 2 <= seconds <= longest


def test_an_endpoint_that_asks_for_too_long_a_wait_ends_judging(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.reply = lambda question: Reply(429, headers={"Retry-After": "3600"})
    with pytest.raises(CannotScore, match=r"in 1 attempt: 429 .* \(asks to wait 3600 s\)"):
        judge_at(endpoint, tmp_path, retries=5).score(PROBLEMS[0], "CANDIDATE")


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({}, 0, 0),
        ({"retry-after": "2"}, 2, 2),
        ({"retry-after": "-2"}, 0, 0),
        ({"retry-after": "soon"}, 0, 0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5, 1.5),
        ({"retry-after": formatdate(time.time() + 10**6, usegmt=True)}, 10**5, 10**6),
        ({"retry-after": formatdate(0, usegmt=True)}, 0, 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(
    headers: Mapping[str, str], least: float, most: float
) -> None:
    assert least <= retry_after(headers) <= most


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    rate_limit = RateLimit(interval=0.0, budget=None, names=EndpointJudge.names)
    assert [str(rate_limit.fail(said)) for said in ("first", "second")] == ["first", "first"]


def test_one_permanent_failure_ends_all_waiting(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda question: Reply(401 if "Do 0 " in question else 503)
    verifier = judge_at(endpoint, tmp_path, retries=5, backoff=1000, longest_wait=1000)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(verifier.score, p, "CANDIDATE") for p in PROBLEMS[1:8]]
        wait_until(lambda: len(endpoint.requests) == 7 and endpoint.under_way == 0)
        waiting.append(pool.submit(verifier.score, PROBLEMS[0], "CANDIDATE"))
        ended(verifier, waiting)
    assert decided(waiting) == 0
    assert " 401 " in failure(waiting)
    assert " 401 " in failure(score_all(verifier, PROBLEMS[8:]))
    assert len(endpoint.requests) == 8


# -- closing --------------------------------------------------------------------------------------


def test_closing_ends_what_waits(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda question: Reply(503)
    verifier = judge_at(endpoint, tmp_path, retries=5, backoff=1000, longest_wait=1000)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(verifier.score, p, "CANDIDATE") for p in PROBLEMS[:4]]
        wait_until(lambda: len(endpoint.requests) == 4)
        verifier.close()
        ended(verifier, waiting)
    assert failure(waiting) == "judging has been ended"


def test_closing_loses_no_answer_under_way(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.may_answer.clear()
    verifier = judge_at(endpoint, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        score = pool.submit(verifier.score, PROBLEMS[0], "CANDIDATE")
        wait_until(lambda: endpoint.under_way == 1)
        closed = pool.submit(verifier.close)
        endpoint.may_answer.set()
        closed.result(DEADLINE)
    assert score.result().value == 0.5
    assert judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE").value == 0.5
    assert len(endpoint.requests) == 1


def test_it_scores_again_after_close(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda question: Reply(401) if "Do 0 " in question else None
    verifier = judge_at(endpoint, tmp_path)
    for problem in PROBLEMS[1:3]:
        assert verifier.score(problem, "CANDIDATE").value == 0.5
        with pytest.raises(CannotScore):
            verifier.score(PROBLEMS[0], "CANDIDATE")
        verifier.close()
    assert verifier.usage.paid == 2


# -- never paid twice -----------------------------------------------------------------------------


def test_an_answer_is_kept(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda question: {"m": 0.7, "M": 0.1, "\u00e9": 0.1}
    endpoint.model = "fake-1"
    first = judge_at(endpoint, tmp_path)
    paid = [score.result() for score in score_all(first, PROBLEMS[:5])]
    nowhere = FakeEndpoint(url=endpoint.url)
    endpoint.reply = lambda question: Reply(500)
    again = judge_at(nowhere, tmp_path)
    assert [score.result() for score in score_all(again, PROBLEMS[:5])] == paid
    assert paid[0].by == "fake-1"
    assert (again.usage.paid, again.usage.cached, again.usage.dollars) == (0, 5, 0.0)
    assert len(endpoint.requests) == 5


def test_another_question_judge_or_endpoint_is_another_answer(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    with served(FakeEndpoint()) as other:
        for fake, model, text in (
            (endpoint, "a", "CANDIDATE"),
            (endpoint, "a", "CANDIDATE "),
            (endpoint, "b", "CANDIDATE"),
            (other, "a", "CANDIDATE"),
        ):
            judge_at(fake, tmp_path, model=model).score(PROBLEMS[0], text)
    assert (len(endpoint.requests), len(other.requests)) == (3, 1)


def test_a_pair_asked_by_several_threads_at_once_is_paid_once(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.may_answer.clear()
    verifier = judge_at(endpoint, tmp_path)
    threading.Timer(0.3, endpoint.may_answer.set).start()
    scores = score_all(verifier, 8 * [PROBLEMS[0]])
    assert decided(scores) == 8
    assert len(endpoint.requests) == 1
    assert (verifier.usage.paid, verifier.usage.cached) == (1, 7)


JUDGING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fake_endpoint import PROBLEMS, FakeEndpoint, judge_at
verifier = judge_at(FakeEndpoint(url=sys.argv[1]), Path(sys.argv[2]))
with ThreadPoolExecutor(int(sys.argv[3])) as pool:
    list(pool.map(lambda problem: verifier.score(problem, "CANDIDATE"), PROBLEMS))
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_killed_judging_pays_again_only_what_was_under_way(
    endpoint: FakeEndpoint, tmp_path: Path, threads: int
) -> None:
    command = [sys.executable, "-c", JUDGING, endpoint.url, str(tmp_path), str(threads)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    judging = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})

    def kill() -> None:
        if len(endpoint.requests) == 21:
            judging.send_signal(signal.SIGKILL)

    endpoint.on_request = kill
    assert judging.wait(DEADLINE) == -signal.SIGKILL
    wait_until(lambda: endpoint.under_way == 0)
    endpoint.on_request = lambda: None
    assert decided(score_all(judge_at(endpoint, tmp_path))) == len(PROBLEMS)
    asked = Counter(endpoint.questions)
    assert len(asked) == len(PROBLEMS)
    assert sum(asked.values()) - len(asked) <= threads


PUTTING = """
import sys
from pathlib import Path
from powerbench.models.endpoint.answer_cache import Answers
from powerbench.verifiers.judge import EndpointJudge
from powerbench.verifiers.judge.answer import Answer
kept = Answers(Path(sys.argv[1]), Answer, EndpointJudge.names)
for i in range(50):
    kept.put(f"{sys.argv[2]} {i}", Answer({"m": -float(i)}, "fake", i, 1, 0.0))
"""


def test_several_processes_keep_answers_in_one_file(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PUTTING, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], env=env) for name in "abc"]
    assert [process.wait(DEADLINE) for process in processes] == [0, 0, 0]
    kept = Answers(tmp_path, Answer, EndpointJudge.names)
    found = [kept.get(f"{name} {i}") for name in "abc" for i in range(50)]
    assert [answer and answer.prompt_tokens for answer in found] == 3 * list(range(50))


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = Answers(tmp_path, Answer, EndpointJudge.names)
    kept.put("key", ANSWER)
    kept.close()
    assert kept.get("key") == ANSWER
    assert kept.get("another") is None


def test_trouble_with_the_file_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "BUSY_TIMEOUT", 0.05)
    kept = Answers(tmp_path, Answer, EndpointJudge.names)
    kept.put("key", ANSWER)
    holder = sqlite3.connect(tmp_path / answer_cache.FILE, isolation_level=None)
    holder.execute("begin exclusive")
    with pytest.raises(CannotAsk, match="database is locked"):
        kept.get("key")
    holder.close()
    with pytest.raises(CannotAsk, match="database is locked"):
        kept.get("key")
    kept.close()
    assert kept.get("key") == ANSWER


def damage(file: Path) -> None:
    """Overwrite the middle of a database with noise."""
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


@pytest.mark.parametrize("trouble", ["no folder", "no database", "damaged", "another's", "locked"])
def test_a_cache_that_cannot_be_used_ends_judging_before_anything_is_paid(
    endpoint: FakeEndpoint, tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "BUSY_TIMEOUT", 0.05)
    cache, file = tmp_path / "judge", tmp_path / "judge" / answer_cache.FILE
    kept = Answers(cache, Answer, EndpointJudge.names)
    kept.put("key", ANSWER)
    kept.close()
    holder = sqlite3.connect(file, isolation_level=None)
    if trouble == "no folder":
        cache = file / "sub"
    elif trouble == "no database":
        file.write_text("not a database\n" * 100)
    elif trouble == "damaged":
        damage(file)
    elif trouble == "another's":
        holder.execute("drop table answers")
        holder.execute("create table answers (text)")
    else:
        holder.execute("begin exclusive")
    scores = score_all(judge_at(endpoint, cache), PROBLEMS[:3])
    said = failure(scores)
    holder.close()
    assert decided(scores) == 0
    assert str(cache) in said
    assert said.endswith("fix that, or set verifier.cache to another folder")
    assert endpoint.requests == []


def test_a_cache_in_trouble_ends_all_waiting_and_is_used_again_after_close(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "BUSY_TIMEOUT", 0.05)
    endpoint.reply = lambda question: Reply(503)
    verifier = judge_at(endpoint, tmp_path, retries=5, backoff=1000, longest_wait=1000)
    with ThreadPoolExecutor(3) as pool:
        scores = [pool.submit(verifier.score, PROBLEMS[0], "CANDIDATE")]
        wait_until(lambda: endpoint.requests != [] and endpoint.under_way == 0)
        with sqlite3.connect(tmp_path / answer_cache.FILE, isolation_level=None) as holder:
            holder.execute("begin exclusive")
            scores.append(pool.submit(verifier.score, PROBLEMS[1], "CANDIDATE"))
            ended(verifier, scores)
    holder.close()
    scores.append(score_all(verifier, PROBLEMS[2:3])[0])
    assert len(scores) == 3
    assert "database is locked; fix that" in failure(scores)
    assert decided(scores) == 0
    verifier.close()
    endpoint.reply = lambda question: None
    assert verifier.score(PROBLEMS[1], "CANDIDATE").value == 0.5


def test_a_cache_that_takes_no_more_ends_judging_but_keeps_the_score_paid_for(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    Answers(tmp_path, Answer, EndpointJudge.names).put("key", ANSWER)
    with sqlite3.connect(tmp_path / answer_cache.FILE) as database:
        database.execute(
            "create trigger full before insert on answers "
            "begin select raise(abort, 'database or disk is full'); end"
        )
    verifier = judge_at(endpoint, tmp_path)
    assert verifier.score(PROBLEMS[0], "CANDIDATE").value == 0.5
    with pytest.raises(CannotScore, match="database or disk is full; fix that"):
        verifier.score(PROBLEMS[1], "CANDIDATE")
    assert len(endpoint.requests) == 1


def test_answers_are_kept_beside_the_models(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERBENCH_CACHE", str(tmp_path))
    EndpointJudge(base_url=endpoint.url, key_env=None).score(PROBLEMS[0], "CANDIDATE")
    assert (tmp_path / "judge" / answer_cache.FILE).is_file()


# -- what it costs --------------------------------------------------------------------------------


def test_the_usage_counts_what_the_endpoint_reports(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    score_all(judge_at(endpoint, tmp_path), PROBLEMS[:5])
    verifier = judge_at(endpoint, tmp_path)
    assert verifier.progress() == "0 judged, $0.00"
    score_all(verifier)
    usage = verifier.usage
    assert (usage.paid, usage.cached, usage.prompt_tokens, usage.completion_tokens) == (
        35,
        5,
        35 * 400,
        35,
    )
    assert usage.dollars == pytest.approx(35 * COST)
    assert verifier.progress() == "40 judged, 5 from the cache, $0.14"


def test_the_prices_are_settings(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    verifier = judge_at(endpoint, tmp_path, price_prompt=0.0, price_completion=2e6)
    verifier.score(PROBLEMS[0], "CANDIDATE")
    assert verifier.progress() == "1 judged, $2.00"


@pytest.mark.parametrize("workers", [1, 8])
def test_the_budget_ends_judging_before_it_is_exceeded(
    endpoint: FakeEndpoint, tmp_path: Path, workers: int
) -> None:
    budget = 12.7 * COST
    verifier = judge_at(endpoint, tmp_path, budget=budget, workers=workers)
    scores = score_all(verifier)
    assert decided(scores) == len(endpoint.requests) == 12
    assert verifier.usage.dollars <= budget
    said = failure(scores)
    assert f"12 pairs took ${12 * COST:.4f}" in said
    assert "raise it and repeat the command" in said

    more = judge_at(endpoint, tmp_path, budget=budget, workers=workers)
    assert decided(score_all(more)) == 24
    assert len(endpoint.requests) == 24


def test_what_is_cached_needs_no_budget(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    score_all(judge_at(endpoint, tmp_path))
    poor = judge_at(endpoint, tmp_path, budget=0.0)
    with pytest.raises(CannotScore, match=r"verifier\.budget=0 would be exceeded: 0 pairs"):
        poor.score(PROBLEMS[0], "another")
    assert decided(score_all(poor)) == len(PROBLEMS)


def test_a_pair_that_fits_once_others_have_their_price_is_judged(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.may_answer.clear()
    verifier = judge_at(endpoint, tmp_path, budget=6.7 * COST, workers=6)
    with ThreadPoolExecutor(6) as pool:
        scores = [pool.submit(verifier.score, problem, "CANDIDATE") for problem in PROBLEMS[:6]]
        wait_until(lambda: endpoint.under_way == 5)
        time.sleep(0.2)  # lets the sixth see that it has to wait
        assert endpoint.under_way == 5
        endpoint.may_answer.set()
        ended(verifier, scores)
    assert decided(scores) == 6


@pytest.mark.parametrize(("prompt_tokens", "cost"), [(400, 4 * COST), (4000, 4 * 0.04003)])
def test_requests_under_way_count_as_expected_and_then_as_reported(
    endpoint: FakeEndpoint, tmp_path: Path, prompt_tokens: int, cost: float
) -> None:
    endpoint.usage = prompt_tokens, 1
    endpoint.may_answer.clear()
    verifier = judge_at(endpoint, tmp_path, budget=4.9 * COST, workers=8)
    with ThreadPoolExecutor(8) as pool:
        scores = [pool.submit(verifier.score, problem, "CANDIDATE") for problem in PROBLEMS]
        wait_until(lambda: endpoint.under_way == 4)
        time.sleep(0.2)  # lets the others see that they have to wait
        endpoint.may_answer.set()
        ended(verifier, scores)
    assert "would be exceeded" in failure(scores)
    assert len(endpoint.requests) == 4
    assert verifier.usage.dollars == pytest.approx(cost)


def test_an_answer_without_usage_costs_what_was_expected(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.usage = None
    verifier = judge_at(endpoint, tmp_path, budget=0.05)
    scores = score_all(verifier)
    assert 0 < decided(scores) < len(PROBLEMS)
    assert "would be exceeded" in failure(scores)
    assert 0.04 < verifier.usage.dollars <= 0.05


# -- settings -------------------------------------------------------------------------------------


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    verifier = judge_at(endpoint, tmp_path, key_env="MY_KEY")
    verifier.score(PROBLEMS[0], "CANDIDATE")
    endpoint.reply = lambda question: Reply(401, b'{"error": {"message": "bad key sk-secret."}}')
    with pytest.raises(CannotScore, match="401 bad key <the key>") as refused:
        verifier.score(PROBLEMS[1], "CANDIDATE")
    verifier.close()
    assert endpoint.keys == 2 * ["Bearer sk-secret"]
    assert "sk-secret" not in str(refused.value)
    assert "sk-secret" not in repr(verifier)
    assert b"sk-secret" not in (tmp_path / answer_cache.FILE).read_bytes()


def test_a_key_that_cannot_be_one_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable MY_KEY is not set"):
        EndpointJudge(key_env="MY_KEY")
    for value in ("sk secret", "sk-secret\n", "schl\u00fcssel"):
        monkeypatch.setenv("MY_KEY", value)
        with pytest.raises(UserError, match="the value of MY_KEY is no key") as refused:
            EndpointJudge(key_env="MY_KEY")
        assert value.strip() not in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("workers", 0, "verifier.workers must be an integer >= 1, got 0"),
        ("retries", -1, "verifier.retries must be an integer >= 0, got -1"),
        ("timeout", 0, "verifier.timeout must be a number > 0 and <= 3600 seconds, got 0"),
        (
            "requests_per_minute",
            0,
            "verifier.requests_per_minute must be a number > 0 and <= 1e+06, got 0",
        ),
        ("backoff", -1, "verifier.backoff must be a number >= 0, got -1"),
        ("longest_wait", -1, "verifier.longest_wait must be a number >= 0, got -1"),
        ("budget", "abc", "verifier.budget must be a number >= 0, got abc"),
        ("budget", -1, "verifier.budget must be a number >= 0, got -1"),
        ("price_prompt", -1, "verifier.price_prompt must be a number >= 0, got -1"),
        ("price_completion", -1, "verifier.price_completion must be a number >= 0, got -1"),
        ("model", "", "verifier.model must name a model"),
        ("base_url", "localhost:8000/v1", "must be http(s)://host/..., got 'localhost:8000/v1'"),
        ("base_url", "http://[", "must be http(s)://host/..., got 'http://['"),
        (
            "base_url",
            "http://host:port/v1",
            "must be http(s)://host/..., got 'http://host:port/v1'",
        ),
        ("base_url", "https://me:secret@host/v1", "must not hold a name or password"),
    ],
)
def test_a_bad_setting_is_named(setting: str, value: object, said: str) -> None:
    with pytest.raises(UserError) as refused:
        EndpointJudge(key_env=None, **{setting: value})  # type: ignore[arg-type]
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
