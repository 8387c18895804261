"""What is answered: OpenAI's response objects, with what the answer cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from powerbench.chains.runner import Completed
from powerbench.models.base import Tokenizer
from powerbench.serve.logprobs import RecordedOutcome, TokenLogprob, piece
from powerbench.serve.service import Asked
from powerbench.types import LOG_ZERO, FinishReason, Outcome, Tokens, TopLogprobs


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


@dataclass(frozen=True)
class Answers:
    """The answers to one request, as objects."""

    asked: Asked
    tokenizer: Tokenizer

    def whole(self, done: Sequence[Completed]) -> dict[str, Any]:
        """The response to a request that does not stream. done: what its jobs came to, in their order."""
        of = {id(job): each for job, each in zip(self.asked.jobs, done, strict=True)}
        choices = [
            self.choice(i, [of[id(job)] for job in self.asked.jobs_of(i)])
            for i in range(self.asked.choices)
        ]
        return self._envelope(self.asked.kind, choices) | {"usage": self.usage(done)}

    def chunks(self, index: int, done: Sequence[Completed]) -> Iterator[dict[str, Any]]:
        """One answer of a stream. done: what the jobs that it needs came to."""
        whole = self.choice(index, done)
        if self.asked.kind != "chat.completion":
            yield self._envelope(self.asked.kind, [whole])
            return
        kind, message = "chat.completion.chunk", whole.pop("message")
        first = {"role": "assistant", "content": message["content"]}
        yield self._envelope(kind, [{**whole, "delta": first, "finish_reason": None}])
        yield self._envelope(kind, [{**whole, "delta": {}, "logprobs": None}])

    def last_chunk(self, done: Sequence[Completed]) -> dict[str, Any]:
        """The chunk of a stream that says what all of it cost."""
        chat = self.asked.kind == "chat.completion"
        kind = "chat.completion.chunk" if chat else self.asked.kind
        return self._envelope(kind, []) | {"usage": self.usage(done)}

    def choice(self, index: int, done: Sequence[Completed]) -> dict[str, Any]:
        """One answer. done: what its chain came to, and what scored its prompt, where that was asked for."""
        outcome, asked = done[0].outcome, self.asked
        whole = self.tokenizer.decode(outcome.tokens)
        text = cut(whole, asked.stops)
        stopped = outcome.finish_reason is FinishReason.STOP or text != whole
        proposals = [step for step in outcome.steps if step.decoded]
        shown: dict[str, Any] = {
            "index": index,
            "finish_reason": "stop" if stopped else "length",
            "logprobs": None,
            "powerbench": {
                "problem": asked.identities[index // asked.n].problem,
                "replicate": asked.replicate + index % asked.n,
                "logp": outcome.logp,
                "proposals": len(proposals),
                "accepted": sum(step.accepted for step in proposals),
            },
        }
        answer = self._tokens((), outcome)
        if text != whole:
            answer = [each for each in answer if each.offset < len(text)]
        if asked.kind == "chat.completion":
            shown["message"] = {"role": "assistant", "content": text, "refusal": None}
            if asked.logprobs is not None:
                shown["logprobs"] = {"content": [each.for_chat for each in answer], "refusal": None}
            return shown
        prompt = asked.prompts[index // asked.n] if asked.echo else ()
        before = self.tokenizer.decode(prompt)
        shown["text"] = before + text
        if asked.logprobs is not None:
            echoed = self._tokens(prompt[:1], done[1].outcome) if asked.echo else []
            moved = [replace(each, offset=len(before) + each.offset) for each in answer]
            shown["logprobs"] = _for_completion([*echoed, *moved])
        return shown

    def usage(self, done: Sequence[Completed]) -> dict[str, Any]:
        """What a request cost. completion_tokens are those of the answers; rejected_tokens were decoded for
        them besides, and thrown away."""
        answers = sum(len(each.outcome.tokens) for each in done[: self.asked.choices])
        prompt = sum(map(len, self.asked.prompts))
        decoded = sum(each.cost.decoded for each in done)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answers,
            "total_tokens": prompt + answers,
            "decoded_tokens": decoded,
            "rejected_tokens": decoded - answers,
            "passes": sum(each.cost.passes for each in done),
            "prefilled_tokens": sum(each.cost.prefilled for each in done),
            "speculated_tokens": sum(each.cost.speculated for each in done),
            "seconds": max(each.cost.seconds for each in done),
        }

    def _envelope(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        asked = self.asked
        return {
            "id": asked.id,
            "object": kind,
            "created": asked.created,
            "model": asked.model,
            "choices": list(choices),
            "powerbench": {
                "sampler": asked.choice.described,
                "seed": asked.seed,
                "task": asked.identities[0].task,
            },
        }

    def _tokens(self, first: Tokens, outcome: Outcome) -> list["_Token"]:
        """The tokens of a recorded outcome, after the first ones of a prompt, whose log p is not known."""
        if not isinstance(outcome, RecordedOutcome):
            return []
        known = [TokenLogprob(t, None, TopLogprobs((), ())) for t in first]
        found: list[_Token] = []
        offset, every = 0, [*first, *outcome.tokens]
        for i, each in enumerate([*known, *outcome.logprobs]):
            text = piece(self.tokenizer, every[:i], each.token)
            top = [
                (piece(self.tokenizer, every[:i], token), max(logp, LOG_ZERO))
                for token, logp in zip(each.top.tokens, each.top.logp, strict=True)
            ]
            logp = None if each.logp is None else max(each.logp, LOG_ZERO)
            found.append(_Token(text, offset, logp, top[: self.asked.logprobs]))
            offset += len(text)
        return found


@dataclass(frozen=True)
class _Token:
    """A token as responses show it."""

    text: str
    offset: int
    """Where it begins in the text, in characters."""
    logp: float | None
    """None: of a prompt's first token."""
    top: list[tuple[str, float]]

    @property
    def for_chat(self) -> dict[str, Any]:
        assert self.logp is not None
        top = [_chat_token(text, logp) for text, logp in self.top]
        return {**_chat_token(self.text, self.logp), "top_logprobs": top}


def _chat_token(text: str, logp: float) -> dict[str, Any]:
    return {"token": text, "logprob": logp, "bytes": list(text.encode())}


def _for_completion(tokens: Sequence[_Token]) -> dict[str, Any]:
    """Of tokens with one text, such as special ones, the likeliest is shown; the token drawn always is."""
    tops: list[dict[str, float] | None] = []
    for each in tokens:
        if each.logp is None:
            tops.append(None)
            continue
        top: dict[str, float] = {}
        for text, logp in (*each.top, (each.text, each.logp)):
            top.setdefault(text, logp)
        tops.append(top)
    return {
        "tokens": [each.text for each in tokens],
        "token_logprobs": [each.logp for each in tokens],
        "top_logprobs": tops,
        "text_offset": [each.offset for each in tokens],
    }
