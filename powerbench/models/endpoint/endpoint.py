"""Requests to an OpenAI-compatible endpoint: paced, retried, cached, within a budget."""

import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from powerbench.models.endpoint.answer_cache import A, Answers
from powerbench.models.endpoint.budget import RateLimit, Usage
from powerbench.models.endpoint.client import Client
from powerbench.models.endpoint.failures import CannotAsk, FailureKind, RequestFailed, Unanswered
from powerbench.models.endpoint.settings import EndpointSettings

CHAT = "/chat/completions"
TEXT = "/completions"
BYTES_PER_TOKEN = 3.0
"""Of a question not yet sent: less than English text has, so that the estimate is rather too high."""
MUTE = 3
"""After this number of first answers without log-probabilities, the endpoint is taken to give none."""
REFUSALS = {FailureKind.UNCLEAR: 3, FailureKind.TOO_LONG: 20}
"""After this number of refusals, and before any answer, all requests are taken to be refused."""


class Asked(NamedTuple):
    """One request."""

    request: Mapping[str, Any]
    """Its body."""
    longest: int
    """The most tokens that may be answered."""
    route: str = CHAT
    name: tuple[str | int, ...] = ()
    """Tells apart requests that are the same and want answers of their own, such as replicates."""

    def digest(self, url: str) -> str:
        """sha256 of all that decides what is answered."""
        what: dict[str, Any] = {"url": url, "request": self.request}
        if self.route != CHAT:
            what["route"] = self.route
        if self.name:
            what["name"] = self.name
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def expected(self) -> tuple[int, int]:
        """Tokens of the question and of the answer, estimated, rather too many."""
        question = self.request.get("messages") or self.request.get("prompt")
        asked = json.dumps(question, ensure_ascii=False).encode(errors="replace")
        return round(len(asked) / BYTES_PER_TOKEN), self.longest


@dataclass(frozen=True)
class Reading(Generic[A]):
    """What whoever asks makes of an answer's body."""

    kind: type[A]
    """What the cache keeps."""
    read: Callable[[str, Asked], A]
    """Raises CannotAsk for a body that shows that no answer of this endpoint can be used."""
    has_logprobs: Callable[[A], bool]
    """Whether an answer has the log-probabilities that were asked for; True if none were."""
    no_logprobs: str
    """What to do about an endpoint that gives none, after `; `."""
    cut_counts: bool = False
    """Whether an answer that the endpoint's filter cut short is one."""


class Endpoint(Generic[A]):
    """Answers requests, from the cache or from the endpoint; called by several threads.

    After the first failure that concerns all requests, those that wait fail too, and at once.
    """

    def __init__(self, settings: EndpointSettings, reading: Reading[A]) -> None:
        self._settings, self._reading, self._names = settings, reading, settings.names
        per_minute = settings.requests_per_minute
        interval = 60 / per_minute if per_minute else 0.0
        self._rate_limit = RateLimit(interval, settings.budget, settings.names)
        self._changed = threading.Condition()  # guards all below, and notifies when none is pending
        self._pending: dict[str, Future[A]] = {}
        self._mute: int | None = 0
        self._refused: Counter[FailureKind] = Counter()
        self._client: Client | None = None
        self._answers: Answers[A] | None = None

    @property
    def usage(self) -> Usage:
        """Requests, tokens and dollars so far."""
        return self._rate_limit.usage

    def answer(self, asked: Asked) -> A:
        """The answer to a request.

        A request is paid for once, also if several threads make it at once (not if two processes do,
        at the same moment); a process that is killed loses the answers then under way.
        Raises Unanswered; CannotAsk if no request can be answered now, or if the budget does not
        hold another one.
        """
        key = asked.digest(self._settings.url)
        mine: Future[A] = Future()
        with self._changed:
            future = self._pending.setdefault(key, mine)
        if future is not mine:
            answer = future.result()
            self._rate_limit.note_cached()
            return answer
        try:
            answer = self._kept(key) or self._bought(key, asked)
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
        self._rate_limit.fail(f"{self._names.doing} has been ended")
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)
            for opened in (self._client, self._answers):
                if opened is not None:
                    opened.close()
            self._client = self._answers = None
            self._rate_limit.reopen()

    def _kept(self, key: str) -> A | None:
        try:
            answer = self._cache().get(key)
        except CannotAsk as error:
            raise self._rate_limit.fail(str(error)) from error
        if answer is not None:
            self._rate_limit.note_cached()
            self._hears(answer)
        return answer

    def _bought(self, key: str, asked: Asked) -> A:
        with self._rate_limit.reserved(self._settings.price(*asked.expected()) or 0.0):
            answer = self._read(self._sent(asked), asked)
            tokens = answer.prompt_tokens, answer.completion_tokens
            self._rate_limit.charge(*tokens, self._settings.price(*tokens))
        if not self._hears(answer):
            raise Unanswered("the endpoint gave no log-probabilities")
        try:
            self._cache().put(key, answer)
        except CannotAsk as error:  # this answer counts, as it is paid for; no other will be
            self._rate_limit.fail(str(error))
        return answer

    def _read(self, body: str, asked: Asked) -> A:
        try:
            return self._reading.read(body, asked)
        except CannotAsk as error:
            raise self._rate_limit.fail(str(error)) from error

    def _sent(self, asked: Asked) -> str:
        """The body of the answer, after as many attempts as it takes and is allowed."""
        s, names = self._settings, self._names
        for attempt in range(s.retries + 1):
            self._rate_limit.take_turn()
            try:
                client = self._connected()
                return client.send(asked.route, asked.request, self._reading.cut_counts)
            except RequestFailed as error:
                failed = error
            if failed.kind is FailureKind.REQUEST or self._may_pass(failed.kind):
                raise Unanswered(failed.reason, failed.kind)
            if failed.kind is not FailureKind.TRANSIENT or failed.wait > s.longest_wait:
                break
            if attempt < s.retries:
                self._rate_limit.pause(failed.wait)
                delay = min(s.backoff * 2**attempt, s.longest_wait) * random.uniform(0.5, 1.0)
                self._rate_limit.wait(delay)
        asks = f" (asks to wait {failed.wait:g} s)" if failed.wait else ""
        remedy = names.fill(failed.remedy)
        if asked.route == TEXT and failed.kind is FailureKind.PERMANENT:
            remedy += " (task.chat=always, if the model only chats)"
        raise self._rate_limit.fail(
            f"{names.who} at {s.url} gave no answer in {attempt + 1} attempt{'s' * (attempt > 0)}: "
            f"{failed.reason}{asks}; {remedy}, and {names.kept}"
        )

    def _may_pass(self, refusal: FailureKind) -> bool:
        """Whether a refusal may concern its own request alone: not if it is one too many, and all there is."""
        if refusal not in REFUSALS:
            return False
        with self._changed:
            self._refused[refusal] += 1
            return self._mute is None or self._refused[refusal] < REFUSALS[refusal]

    def _hears(self, answer: A) -> bool:
        """Whether an answer has the log-probabilities that were asked for. Raises CannotAsk if it seems that
        none ever will."""
        heard = self._reading.has_logprobs(answer)
        with self._changed:
            if heard:
                self._mute = None
            elif self._mute is not None:
                self._mute += 1
                if self._mute >= MUTE:
                    raise self._rate_limit.fail(
                        f"{self._names.who} at {self._settings.url} gives no log-probabilities (its first "
                        f"{self._mute} answers had none); {self._names.fill(self._reading.no_logprobs)}"
                    )
        return heard

    def _connected(self) -> Client:
        with self._changed:
            if self._client is None:
                s = self._settings
                self._client = Client(s.url, s.key(), s.timeout)
            return self._client

    def _cache(self) -> Answers[A]:
        with self._changed:
            if self._answers is None:
                self._answers = Answers(self._settings.folder(), self._reading.kind, self._names)
            return self._answers
