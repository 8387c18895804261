"""Requests to an OpenAI-compatible endpoint: paced, retried, cached, within a budget."""

import hashlib
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from powerbench.cache import cache_folder
from powerbench.errors import require, require_integer, require_number
from powerbench.verifiers.common import MAX_SECONDS, CannotScore
from powerbench.verifiers.judge.answer_cache import Answer, Answers
from powerbench.verifiers.judge.budget import RateLimit, Usage
from powerbench.verifiers.judge.client import Client, read_answer
from powerbench.verifiers.judge.failures import FailureKind, RequestFailed

OPENAI = "https://api.openai.com/v1"
BYTES_PER_TOKEN = 3.0
"""Of a question not yet sent: less than English text has, so that the estimate is rather too high."""
MUTE = 3
"""After this number of first answers without log-probabilities, the endpoint is taken to give none."""
REFUSALS = {FailureKind.UNCLEAR: 3, FailureKind.TOO_LONG: 20}
"""After this number of refusals, and before any answer, all requests are taken to be refused."""


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Which endpoint, and the limits under which it is asked.

    base_url: None for OpenAI's own.
    key_env: the environment variable that holds the key; None for an endpoint that needs no key.
    workers: requests that may run at once.
    requests_per_minute: they start at least 60 s / this apart; None for no limit.
    timeout: seconds for connecting, and for each wait for more of an answer.
    retries: how often a request is sent again after a failure that may pass.
    backoff: seconds before it is sent again; doubled each time, and less by a random part of up to half.
    longest_wait: seconds that `backoff` grows to; an endpoint that asks for a longer wait ends judging.
    cache: the folder of the answers paid for; None for `judge` in the cache of powerbench.
    budget: US dollars that this verifier may spend, by the usage that the endpoint reports; None for
        no limit. An attempt that ended without an answer is not in it.
    price_prompt, price_completion: US dollars for a million tokens.
    """

    base_url: str | None = None
    key_env: str | None = "OPENAI_API_KEY"
    workers: int = 8
    requests_per_minute: float | None = None
    timeout: float = 60.0
    retries: int = 6
    backoff: float = 1.0
    longest_wait: float = 60.0
    cache: str | None = None
    budget: float | None = None
    price_prompt: float = 10.0
    price_completion: float = 30.0

    def __post_init__(self) -> None:
        require_integer("verifier.workers", self.workers, 1)
        require_integer("verifier.retries", self.retries, 0)
        require_number("verifier.timeout", self.timeout, 0, MAX_SECONDS, "seconds")
        if self.requests_per_minute is not None:
            require_number("verifier.requests_per_minute", self.requests_per_minute, 0, 1e6)
        for name in ("backoff", "longest_wait", "budget", "price_prompt", "price_completion"):
            value = getattr(self, name)
            ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf
            ok = ok or (value is None and name == "budget")
            require(ok, f"verifier.{name} must be a number >= 0, got {value}")
        require(
            "@" not in self.url,
            "verifier.base_url must not hold a name or password: verifier.key_env is for the key",
        )
        require(
            _is_url(self.url),
            f"verifier.base_url must be http(s)://host/..., got {self.base_url!r}",
        )
        key = self.key()
        require(
            self.key_env is None or bool(key),
            f"verifier.key_env: the environment variable {self.key_env} is not set; set it to the "
            f"endpoint's key, or choose verifier=judge_standin",
        )
        require(
            key is None or (key.isascii() and key.isprintable() and " " not in key),
            f"verifier.key_env: the value of {self.key_env} is no key: it holds a space, a line's "
            f"end or a character that is not ASCII",
        )

    @property
    def url(self) -> str:
        return (self.base_url or OPENAI).rstrip("/")

    def key(self) -> str | None:
        """The key, from the environment."""
        return os.environ.get(self.key_env) if self.key_env else None

    def folder(self) -> Path:
        """Where answers are kept."""
        if self.cache is not None:
            return Path(self.cache).expanduser()
        return cache_folder() / "judge"

    def price(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars."""
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / 1e6


class Unanswered(Exception):  # noqa: N818
    """This request has no answer, for a reason of its own; others may have one."""


class Endpoint:
    """Answers requests for one token, from the cache or from the endpoint; called by several threads.

    After the first failure that concerns all requests, those that wait fail too, and at once.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        per_minute = settings.requests_per_minute
        self._rate_limit = RateLimit(60 / per_minute if per_minute else 0.0, settings.budget)
        self._changed = threading.Condition()  # guards all below, and notifies when none is pending
        self._pending: dict[str, Future[Answer]] = {}
        self._mute: int | None = 0
        self._refused: Counter[FailureKind] = Counter()
        self._client: Client | None = None
        self._answers: Answers | None = None

    @property
    def usage(self) -> Usage:
        """Requests, tokens and dollars so far."""
        return self._rate_limit.usage

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """The answer, with log-probabilities, to a chat completion request for one token.

        A request is paid for once, also if several threads make it at once (not if two processes do,
        at the same moment); a process that is killed loses the answers then under way.
        Raises Unanswered; CannotScore if no request can be answered now, or if the budget does not
        hold another one.
        """
        key = _digest(self._settings.url, request)
        mine: Future[Answer] = Future()
        with self._changed:
            future = self._pending.setdefault(key, mine)
        if future is not mine:
            answer = future.result()
            self._rate_limit.note_cached()
            return answer
        try:
            answer = self._kept(key) or self._bought(key, request)
            mine.set_result(answer)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._changed:
                del self._pending[key]
                self._changed.notify_all()
        return answer

    def close(self) -> None:
        """End what waits, let the requests under way come to their end, and disconnect."""
        self._rate_limit.fail("judging has been ended")
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)
            for opened in (self._client, self._answers):
                if opened is not None:
                    opened.close()
            self._client = self._answers = None
            self._rate_limit.reopen()

    def _kept(self, key: str) -> Answer | None:
        try:
            answer = self._cache().get(key)
        except CannotScore as error:
            raise self._rate_limit.fail(str(error)) from error
        if answer is not None:
            self._rate_limit.note_cached()
            self._hears(answer)
        return answer

    def _bought(self, key: str, request: Mapping[str, Any]) -> Answer:
        asked = json.dumps(request["messages"], ensure_ascii=False).encode(errors="replace")
        expected = round(len(asked) / BYTES_PER_TOKEN), int(request["max_tokens"])
        with self._rate_limit.reserved(self._settings.price(*expected)):
            answer = read_answer(self._sent(request), str(request["model"]), *expected)
            tokens = answer.prompt_tokens, answer.completion_tokens
            self._rate_limit.charge(*tokens, self._settings.price(*tokens))
        if not self._hears(answer):
            raise Unanswered("the endpoint gave no log-probabilities")
        try:
            self._cache().put(key, answer)
        except CannotScore as error:  # this answer counts, as it is paid for; no other will be
            self._rate_limit.fail(str(error))
        return answer

    def _sent(self, request: Mapping[str, Any]) -> str:
        """The body of the answer, after as many attempts as it takes and is allowed."""
        s = self._settings
        for attempt in range(s.retries + 1):
            self._rate_limit.take_turn()
            try:
                return self._connected().send(request)
            except RequestFailed as error:
                failed = error
            if failed.kind is FailureKind.REQUEST or self._may_pass(failed.kind):
                raise Unanswered(failed.reason)
            if failed.kind is not FailureKind.TRANSIENT or failed.wait > s.longest_wait:
                break
            if attempt < s.retries:
                self._rate_limit.pause(failed.wait)
                delay = min(s.backoff * 2**attempt, s.longest_wait) * random.uniform(0.5, 1.0)
                self._rate_limit.wait(delay)
        asks = f" (asks to wait {failed.wait:g} s)" if failed.wait else ""
        raise self._rate_limit.fail(
            f"the judge at {s.url} gave no answer in {attempt + 1} attempt{'s' * (attempt > 0)}: "
            f"{failed.reason}{asks}; {failed.remedy}, and repeat the command: what is judged is kept"
        )

    def _may_pass(self, refusal: FailureKind) -> bool:
        """Whether a refusal may concern its own request alone: not if it is one too many, and all there is."""
        if refusal not in REFUSALS:
            return False
        with self._changed:
            self._refused[refusal] += 1
            return self._mute is None or self._refused[refusal] < REFUSALS[refusal]

    def _hears(self, answer: Answer) -> bool:
        """Whether an answer has log-probabilities. Raises CannotScore if it seems that none ever will."""
        with self._changed:
            if answer.logprobs:
                self._mute = None
            elif self._mute is not None:
                self._mute += 1
                if self._mute >= MUTE:
                    raise self._rate_limit.fail(
                        f"the judge at {self._settings.url} gives no log-probabilities (its first "
                        f"{self._mute} answers had none); set verifier.base_url and verifier.model "
                        f"to an endpoint that gives them for chat completions (top_logprobs)"
                    )
        return bool(answer.logprobs)

    def _connected(self) -> Client:
        with self._changed:
            if self._client is None:
                s = self._settings
                self._client = Client(s.url, s.key(), s.timeout)
            return self._client

    def _cache(self) -> Answers:
        with self._changed:
            if self._answers is None:
                self._answers = Answers(self._settings.folder())
            return self._answers


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _digest(url: str, request: Mapping[str, Any]) -> str:
    """sha256 of all that decides what is answered."""
    what = json.dumps({"url": url, "request": request}, sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()
