"""A fake model behind an API, and runs that ask it: it answers as told, and remembers what it was asked."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_endpoint import DEADLINE, FakeEndpoint, Reply

from powerbench.cli import main
from powerbench.config import compose
from powerbench.store import Run, find_runs
from powerbench.types import Sample

TASK = ["task=math_mini", "task.chat=always", "limit=3"]
PROBLEMS = compose(TASK).build("task").problems("instruct")[:3]
GOLD = {problem.prompt.text: problem.gold for problem in PROBLEMS}

Likely = tuple[str, float, dict[str, float]]
"""A token, its log-probability, and those of the likeliest at its position."""


@dataclass(frozen=True)
class Said:
    """An answer."""

    text: str | None = ""
    finish: str | None = "stop"
    message: dict[str, Any] = field(default_factory=dict)
    """Further fields of it."""
    likely: Sequence[Likely] | None = None
    """None: it gives no log-probabilities."""
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 50, "completion_tokens": 20}
    )


def right(question: str, nth: int) -> Said:
    """The gold answer, numbered by how often the question came."""
    return Said(f"{nth}: \\boxed{{{GOLD[question]}}}")


@dataclass
class FakeModel(FakeEndpoint):
    """Answers chats, and continues raw text."""

    says: Callable[[str, int], Said] = right
    answered: int = 0
    _times: Counter[str] = field(default_factory=Counter)

    def respond(self, request: dict[str, Any], key: str | None) -> Reply:
        chat = "messages" in request
        question = request["messages"][-1]["content"] if chat else request["prompt"]
        with self.lock:
            self.keys.append(key)
            self.requests.append(request)
            self.under_way += 1
        self.on_request()
        reply = self.reply(question)
        if reply is None:
            self.may_answer.wait(DEADLINE)
            with self.lock:
                nth, self.answered = self._times[question], self.answered + 1
                self._times[question] += 1
            reply = Reply(body=self._body(request, self.says(question, nth), chat))
        with self.lock:
            self.under_way -= 1
        return reply

    def _body(self, request: dict[str, Any], said: Said, chat: bool) -> bytes:
        likely = said.likely if request.get("logprobs") not in (None, False) else None
        choice: dict[str, Any] = {"index": 0, "finish_reason": said.finish}
        if chat:
            choice["message"] = {"role": "assistant", "content": said.text, **said.message}
            choice["logprobs"] = None if likely is None else {"content": list(map(_token, likely))}
        else:
            choice["text"] = said.text
            choice["logprobs"] = likely and {
                "tokens": [token for token, _, _ in likely],
                "token_logprobs": [logp for _, logp, _ in likely],
                "top_logprobs": [top for _, _, top in likely],
            }
        usage = {} if said.usage is None else {"usage": said.usage}
        body = {"id": "1", "model": self.model or request["model"], "choices": [choice], **usage}
        return json.dumps(body).encode()


def _token(likely: Likely) -> dict[str, Any]:
    token, logp, top = likely
    return {
        "token": token,
        "logprob": logp,
        "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()],
    }


@dataclass(frozen=True)
class Asking:
    """Runs of one folder that ask one fake."""

    fake: FakeModel
    folder: Path

    def command(self, *settings: str) -> list[str]:
        """`powerbench run` of three problems."""
        quick = ["model.retries=0", "model.backoff=0.01", f"model.timeout={DEADLINE}"]
        mine = [setting.partition("=")[0] for setting in settings]
        base = [
            *("model=endpoint", "model.id=vendor/thinker", "model.key_env=null", *quick, *TASK),
            f"model.base_url={self.fake.url}",
            *(f"model.cache={self.folder / 'cache'}", f"runs={self.folder / 'runs'}"),
            *("tracker=none", "max_tokens=64", "sampler=base"),
        ]
        return ["run", *(each for each in base if each.partition("=")[0] not in mine), *settings]

    def run(self, *settings: str) -> Run:
        """Run it to its end."""
        main(self.command(*settings))
        (run,) = find_runs([self.folder / "runs"])
        return run

    def samples(self, *settings: str) -> list[Sample]:
        """What such a run makes, ordered by key."""
        found = self.run(*settings).samples()
        return [found[key] for key in sorted(found)]
