"""A tabular language model over a handful of tokens, and its engine: for laws and tests.

Plain Python, float64, no cache: slow and beyond doubt. Token 0 is EOS.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from powerbench.engines.base import Finished
from powerbench.engines.drafter import MOST, Drafter, Writing, pass_counts
from powerbench.errors import require_integer
from powerbench.models import TabularModel
from powerbench.types import Draw, Extend, FinishReason, Key, Tokens, TopLogprobs


def proposal(p: np.ndarray, request: Extend) -> np.ndarray:
    """The distribution that a request draws from, float64 [V], given the base model's p [V]."""
    allowed = np.ones(len(p), dtype=bool)
    if request.top_k is not None and request.top_k < len(p):
        allowed = p >= np.sort(p)[-request.top_k]
    if request.support is not None:
        allowed &= np.isin(np.arange(len(p)), request.support)
    if request.tau == 0:
        q = np.zeros(len(p))
        q[np.argmax(np.where(allowed, p, -1.0))] = 1.0
        return q
    with np.errstate(divide="ignore"):
        scaled = np.where(allowed, np.log(p) / request.tau, -np.inf)
    q = np.exp(scaled - scaled.max())
    return q / q.sum()


def top_logprobs(p: np.ndarray, count: int) -> TopLogprobs:
    """The `count` most likely tokens (all, if there are fewer), given the base model's p [V]."""
    tokens = np.argsort(-p, kind="stable")[:count]
    with np.errstate(divide="ignore"):
        logp = np.log(p[tokens])
    return TopLogprobs(tuple(tokens.tolist()), tuple(logp.tolist()))


def log_normalisers(p: np.ndarray, request: Extend) -> tuple[float, ...]:
    """log sum_v p(v)^a over the request's support for each of its exponents, given the base model's p [V]."""
    on_support = p[proposal(p, replace(request, tau=1.0)) > 0]
    return tuple(float(np.log((on_support**a).sum())) for a in request.exponents)


@dataclass
class EngineRequest:
    """A request at work: its Extend, and what it drew so far."""

    prompt: Tokens
    extend: Extend
    uniforms: np.ndarray
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logq: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    top: list[TopLogprobs] = field(default_factory=list)
    log_normalisers: list[tuple[float, ...]] = field(default_factory=list)
    weight: float = 0.0
    writing: Writing | None = None


class ToyEngine:
    """The engine protocol over a TabularModel: no cache, so the longest lengths do not matter."""

    def __init__(
        self,
        model: TabularModel,
        max_prompt: int = 0,
        max_tokens: int = 0,
        max_num_seqs: int = 8,
        draft: int | str = 0,
    ) -> None:
        require_integer("engine.max_num_seqs", max_num_seqs, 1)
        if draft != "auto":
            require_integer("engine.draft", draft, 0)
        most = MOST if draft == "auto" else int(draft)
        self.drafter = Drafter(most) if most else None
        self.model, self.max_num_seqs, self.efficient_num_seqs = model, max_num_seqs, max_num_seqs
        self._running: dict[tuple[int, Key], EngineRequest] = {}

    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        new = EngineRequest(prompt, request, uniforms)
        if self.drafter is not None:
            new.writing = self.drafter.begin(chain, prompt, request, uniforms)
        self._running[chain, request.key] = new

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        if self.drafter is not None and key is None:
            self.drafter.forget(chain)
        names = [n for n in self._running if n[0] == chain and key in (None, n[1])]
        return sum(len(self._running.pop(name).tokens) for name in names)

    def step(self) -> list[Finished]:
        finished = []
        for (chain, key), at_work in list(self._running.items()):
            if (finish_reason := self._decode_drafted(at_work)) is not None:
                del self._running[chain, key]
                passes = pass_counts(at_work.writing, len(at_work.tokens))
                draw = Draw(
                    tuple(at_work.tokens),
                    tuple(at_work.logp),
                    tuple(at_work.logq),
                    tuple(at_work.entropy),
                    finish_reason,
                    prefilled=len(at_work.prompt) + at_work.extend.keep,
                    top_logprobs=tuple(at_work.top),
                    log_normalisers=tuple(at_work.log_normalisers),
                    passes=passes.passes,
                    rows=passes.rows,
                )
                finished.append(Finished(chain, key, draw))
        return finished

    def _decode_drafted(self, request: EngineRequest) -> FinishReason | None:
        """One token, or as many as the draft has right, and one more."""
        if self.drafter is None or request.writing is None:
            return self._decode(request)
        (draft,), before = self.drafter.draft([request.writing]), len(request.tokens)
        finish_reason = self._decode(request)
        for token in draft:
            if finish_reason is not None or request.tokens[-1] != token:
                break
            finish_reason = self._decode(request)
        self.drafter.take(request.writing, request.tokens[before:], request.logq[before:])
        return finish_reason

    def _decode(self, request: EngineRequest) -> FinishReason | None:
        extend = request.extend
        position = extend.keep + len(request.tokens)
        p = self.model.p(request.prompt + extend.prefix + tuple(request.tokens))
        q = proposal(p, extend)
        support = np.flatnonzero(q)
        cdf = np.cumsum(q[support])
        index = np.searchsorted(cdf, request.uniforms[position] * cdf[-1], side="right")
        token = int(support[min(index, len(support) - 1)])
        request.tokens.append(token)
        request.logp.append(float(np.log(p[token])))
        request.logq.append(float(np.log(q[token])))
        request.entropy.append(float(-(p[p != 0] * np.log(p[p != 0])).sum()))
        if extend.top_logprobs:
            request.top.append(top_logprobs(p, extend.top_logprobs))
        if extend.exponents:
            request.log_normalisers.append(log_normalisers(p, extend))
        request.weight += extend.alpha * request.logp[-1] - request.logq[-1]
        if not request.weight >= extend.floor:  # NaN, too, ends here
            return FinishReason.FLOOR
        if token in extend.stop_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if position + 1 == extend.until else None
