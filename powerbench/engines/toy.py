"""A tabular language model over a handful of tokens, and its engine: for laws and tests.

Plain Python, float64, no cache: slow and beyond doubt. Token 0 is EOS.
"""

from dataclasses import dataclass, field

import numpy as np

from powerbench.engines.base import Finished
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


def likeliest(p: np.ndarray, count: int) -> TopLogprobs:
    """The so many likeliest tokens (all, if there are fewer), given the base model's p [V]."""
    tokens = np.argsort(-p, kind="stable")[:count]
    with np.errstate(divide="ignore"):
        logp = np.log(p[tokens])
    return TopLogprobs(tuple(tokens.tolist()), tuple(logp.tolist()))


@dataclass
class _Running:
    prompt: Tokens
    request: Extend
    uniforms: np.ndarray
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logq: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    top: list[TopLogprobs] = field(default_factory=list)
    weight: float = 0.0


class ToyEngine:
    """The engine protocol over a TabularModel: no cache, so the longest lengths do not matter."""

    def __init__(
        self, model: TabularModel, max_prompt: int = 0, max_tokens: int = 0, max_num_seqs: int = 8
    ) -> None:
        require_integer("engine.max_num_seqs", max_num_seqs, 1)
        self.model, self.max_num_seqs, self.efficient_num_seqs = model, max_num_seqs, max_num_seqs
        self._running: dict[tuple[int, Key], _Running] = {}

    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        self._running[chain, request.key] = _Running(prompt, request, uniforms)

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        names = [n for n in self._running if n[0] == chain and key in (None, n[1])]
        return sum(len(self._running.pop(name).tokens) for name in names)

    def step(self) -> list[Finished]:
        finished = []
        for (chain, key), run in list(self._running.items()):
            if (finish_reason := self._decode(run)) is not None:
                del self._running[chain, key]
                prefilled = len(run.prompt) + run.request.keep
                columns = tuple(run.logp), tuple(run.logq), tuple(run.entropy)
                draw = Draw(tuple(run.tokens), *columns, finish_reason, prefilled, tuple(run.top))
                finished.append(Finished(chain, key, draw))
        return finished

    def _decode(self, run: _Running) -> FinishReason | None:
        request = run.request
        position = request.keep + len(run.tokens)
        p = self.model.p(run.prompt + request.prefix + tuple(run.tokens))
        q = proposal(p, request)
        support = np.flatnonzero(q)
        cdf = np.cumsum(q[support])
        index = np.searchsorted(cdf, run.uniforms[position] * cdf[-1], side="right")
        token = int(support[min(index, len(support) - 1)])
        run.tokens.append(token)
        run.logp.append(float(np.log(p[token])))
        run.logq.append(float(np.log(q[token])))
        run.entropy.append(float(-(p[p > 0] * np.log(p[p > 0])).sum()))
        if request.top_logprobs:
            run.top.append(likeliest(p, request.top_logprobs))
        run.weight += request.alpha * run.logp[-1] - run.logq[-1]
        if request.floor > run.weight:
            return FinishReason.FLOOR
        if token in request.stop_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if position + 1 == request.until else None
