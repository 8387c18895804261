"""The values that pass between tasks, samplers, engines, runner, verifiers and reports: data only."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

Key = tuple[str | int, ...]
"""Names a draw within its chain (block, step, ...): with the chain's identity it fixes the randomness."""

Tokens = tuple[int, ...]

PER_TOKEN = -1
"""Stands for one decoding pass, of one row, for each decoded token: what they are where nothing is drafted."""

LOG_ZERO = -1e4
"""Stands for log 0 in nats: exp of it is 0, and 0 times it is no NaN."""

KINDS = ("base", "rl", "instruct")
"""How benchmarks address a model: raw text, a base model trained with RL, or by instructions."""


class SampleKey(NamedTuple):
    """Names one sample of a run."""

    problem: str
    replicate: int


@dataclass(frozen=True)
class Keyed:
    """A record about one sample."""

    problem: str
    replicate: int

    @property
    def key(self) -> SampleKey:
        """The sample that it is about."""
        return SampleKey(self.problem, self.replicate)


# -- what a task gives ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """What the model is shown: raw text, or one user turn of its chat template."""

    text: str
    chat: bool = False


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    text: str


@dataclass(frozen=True)
class Problem:
    """One item of a benchmark."""

    id: str
    prompt: Prompt
    gold: str
    """The reference: an answer (math), a solution (code), or the baseline's response (preference)."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What only the task's own verifier and the report read: subject, level, tests, instruction."""


# -- what a sampler asks for ----------------------------------------------------------------------


class FinishReason(StrEnum):
    """Why decoding ended."""

    STOP = "stop"
    """The last token is a stop token."""
    LENGTH = "length"
    """The response reached the position asked for."""
    FLOOR = "floor"
    """The running weight fell below the request's floor: the draw is incomplete, and useless."""
    REFUSED = "refused"
    """The endpoint gave no answer, or its filter cut it short."""
    UNKNOWN = "unknown"
    """The endpoint does not say."""


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Asks for log(u), u uniform on (0, 1]."""

    key: Key


@dataclass(frozen=True, slots=True)
class Choose:
    """Asks for an index, drawn with the given probabilities (they sum to one)."""

    key: Key
    probabilities: tuple[float, ...]
    shared: bool = False
    """Draw from a stream that all replicates of the chain's problem have in common."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Asks for new tokens after the first `keep` tokens of `response`, drawn from a proposal q.

    q(v) is proportional to p(v)^(1/tau) on its support: the whole vocabulary, its `top_k` likeliest
    tokens, or the tokens of `support`. tau = 0 takes the likeliest token.
    """

    key: Key
    response: Tokens
    """The chain's current response, in full: an engine should keep it in its cache."""
    keep: int
    until: int
    """Decode up to this length of the response, in tokens, kept ones included, or to a stop token."""
    stop_tokens: Tokens
    tau: float = 1.0
    top_k: int | None = None
    support: Tokens | None = None
    alpha: float = 1.0
    floor: float = float("-inf")
    """End as soon as the sum over new tokens of alpha * log p - log q, in nats, is below this."""
    sequence: int = 0
    """Which of the chain's responses `response` is, where it has several, such as replicas: an engine
    should keep one of each in its cache."""
    proposal: bool = False
    """Whether the chain, answered with `FinishReason.FLOOR`, takes it for rejected and goes on from `response`.
    What it asks next is then known before the answer is, and may be started ahead."""
    top_logprobs: int = 0
    """Report this many of the base model's most likely next tokens at every new position."""
    exponents: tuple[float, ...] = ()
    """Report log sum_v p(v)^a, v over q's support, at every new position for each of these a > 0: on the same
    support, a token's log q at temperature 1/a is a * log p less that."""

    @property
    def prefix(self) -> Tokens:
        """The part of the response that stays."""
        return self.response[: self.keep]


@dataclass(frozen=True, slots=True)
class Together:
    """Asks for extensions that do not wait for each other: particles, candidates, replicas.

    The answer is a tuple of their draws, in the same order.
    """

    requests: tuple[Extend, ...]
    """At least one; their keys all differ."""


@dataclass(frozen=True, slots=True)
class Save:
    """Says that the chain can be started again from here. Nothing is drawn, and None is sent back."""

    state: Mapping[str, Any]
    """Plain data (JSON): what the sampler's `chain(context, state)` starts from."""


class TopLogprobs(NamedTuple):
    """The likeliest next tokens at one position, likeliest first, ties by the lower token id."""

    tokens: Tokens
    logp: tuple[float, ...]
    """Log-probability of each, nats, under the base model: temperature 1, whole vocabulary."""

    @property
    def entropy(self) -> float:
        """Entropy, nats, of the base model restricted to these tokens and normalised over them."""
        masses = [math.exp(logp) for logp in self.logp]
        total = math.fsum(masses)
        shares = [mass / total for mass in masses]
        return -math.fsum(share * math.log(share) for share in shares if share > 0)


@dataclass(frozen=True)
class Reported:
    """What an endpoint says of a response that it gave as text. Nothing of it can be checked here."""

    model: str
    """The model, as the endpoint names it."""
    tokens: int
    """Of the response, its reasoning included: those that are billed."""
    reasoning: str | None = None
    """What it thought before it answered, where it tells: no part of the response's text."""
    reasoning_tokens: int | None = None
    """How many of the tokens that took, where it tells."""
    refusal: str | None = None
    """Why there is no answer, or no whole one, in its words."""
    dollars: float | None = None
    """US dollars for this response, at the prices that the model's settings have; None where they have none."""


class Reply(NamedTuple):
    """A whole response as an endpoint gives it: text, whose tokens are not known."""

    text: str
    prompt_tokens: int
    """As billed; 0 for a request that was refused outright."""
    reported: Reported


@dataclass(frozen=True, slots=True)
class Draw:
    """The answer to an Extend: the new tokens only. All sequences have one entry per token.

    An endpoint's has a `reply` instead of tokens, log q and entropy; log p is as the endpoint reports it, for
    the part of the response that it reports it for, and empty where it does not.
    """

    tokens: Tokens
    logp: tuple[float, ...]
    """Log-probability, nats, under the base model: temperature 1, whole vocabulary."""
    logq: tuple[float, ...]
    """Log-probability, nats, under the distribution really drawn from, normalised on its support."""
    entropy: tuple[float, ...]
    """Entropy, nats, of the base model's next-token distribution at this position."""
    finish_reason: FinishReason
    prefilled: int = 0
    """Tokens of context that had to be computed for this draw (not found in the cache)."""
    top_logprobs: tuple[TopLogprobs, ...] = ()
    """The most likely tokens at each position, as many as the request's `top_logprobs` or the whole vocabulary;
    empty if it asked for none."""
    preempted: int = 0
    """Tokens decoded for it before and thrown away, since the engine's memory ran out: decoded again, they are
    the same up to rounding."""
    log_normalisers: tuple[tuple[float, ...], ...] = ()
    """log sum_v p(v)^a at each position, nats, for each of the request's `exponents`: v over its support (whole
    vocabulary, `top_k` likeliest tokens, or `support`), p normalised over the whole vocabulary all the same.
    Empty if it asked for none."""
    passes: int = PER_TOKEN
    """Decoding passes in which its sequence took part: one that verifies a whole draft counts once, prefills
    do not count. An engine that drafts nothing leaves it out; it is read as a number in any case."""
    rows: int = PER_TOKEN
    """Token positions that these passes computed for it, rejected drafted tokens included; likewise."""
    reply: Reply | None = None
    """The response, where an endpoint gave it as text."""

    def __post_init__(self) -> None:
        _count_per_token(self, len(self.tokens))


@dataclass(frozen=True)
class Context:
    """What a chain is given at its start."""

    prompt: Tokens
    eos: int
    """The tokenizer's end-of-sequence token."""
    stop_tokens: Tokens
    """All tokens that end a response, `eos` among them: the model's and the task's."""
    task_stop_tokens: Tokens = ()
    """Those of them that are the task's own, such as the line's end after a few-shot solution."""
    answer: Callable[[Tokens | str], str | None] | None = None
    """The answer that a response gives, equal answers as equal strings, or None if it gives none. A response is
    its tokens, or its text where an endpoint gave that. The field is None where the task's responses have no
    answers."""


# -- what a chain returns, and what is stored -----------------------------------------------------


class Step(NamedTuple):
    """One Metropolis-Hastings step, for diagnostics."""

    block: int
    restart: int
    """Position, in tokens from the start of the response, from which the proposal departs."""
    current: float
    """Log-likelihood (nats, whole response) before the step."""
    proposed: float | None
    """Log-likelihood of the proposal; None if it was rejected early, or if there was none."""
    decoded: int
    """Tokens decoded for the proposal; 0 if the restart lay past the end: the chain stays."""
    accepted: bool


class Round(NamedTuple):
    """Several candidates, of which some were kept: for diagnostics."""

    block: int
    start: int
    """Position, in tokens from the start of the response, from which the candidates depart."""
    logp: tuple[float | None, ...]
    """Log-likelihood (nats, whole response so far) of each; None of an endpoint's."""
    weights: tuple[float, ...]
    """Those by which they were chosen, summing to one; or votes or scores, where the sampler says so."""
    kept: tuple[int, ...]
    """Indices in `logp` of those that were kept, repeated where copied."""


@dataclass(frozen=True)
class Outcome:
    """What a chain returns: its last state, and the steps or rounds that led there."""

    tokens: Tokens
    logp: float | None
    """Log-likelihood under the base model, nats, summed over the response's tokens; None of an endpoint's."""
    entropy: float | None
    """Entropy of the base model's next-token distributions, nats, summed over positions; None likewise."""
    finish_reason: FinishReason
    steps: tuple[Step, ...] = ()
    rounds: tuple[Round, ...] = ()
    reply: Reply | None = None
    """The response, where an endpoint gave it as text: then there are no tokens."""
    members: tuple[Tokens | str, ...] = ()
    """The population that the response was chosen from, itself among them, in the order of the last round or of
    the replicas: the tokens of each, or its text. Empty of a sampler that holds one response at a time."""


Request = LogUniform | Choose | Save | Extend | Together
Answer = float | int | Draw | tuple[Draw, ...] | None
Chain = Generator[Request, Any, Outcome]
"""A sampler at work on one response: yields requests, is sent answers, returns an Outcome."""


class Members(NamedTuple):
    """What the members of the population that a response was chosen from answer."""

    verifier: str
    """The name of the one that has read their answers: another might read others."""
    answers: tuple[str | None, ...]
    """As they are written, in the members' order; None of a member that gives none."""


class Span(NamedTuple):
    """A stretch of wall-clock time, in seconds since 1970."""

    began: float
    ended: float


@dataclass(frozen=True)
class Checkpoint:
    """An unfinished chain at the end of a block: what it goes on from, and what it has cost so far."""

    state: Mapping[str, Any]
    """As the sampler saved it."""
    decoded: int
    prefilled: int
    speculated: int
    spans: tuple[Span, ...]
    """When it was worked on, up to here."""
    attended: float
    """As of `Cost`."""
    passes: int = PER_TOKEN
    rows: int = PER_TOKEN

    def __post_init__(self) -> None:
        _count_per_token(self, self.decoded)


@dataclass(frozen=True)
class Cost:
    """What one response cost, rejected proposals included."""

    decoded: int
    """Tokens decoded."""
    prefilled: int
    """Tokens of prompt and prefix computed for the draws that were used, those found in the cache not
    counted: it depends on what was cached. Of an endpoint: all tokens of prompts, as billed."""
    seconds: float
    """Wall-clock from the chain's first request to its end, or from the checkpoint that it went on from;
    chains of a batch share this time."""
    finished: float
    """When it ended, in seconds since 1970: a run's own time is the union of these intervals."""
    attended: float | None
    """Summed over rows and prefilled tokens: how many tokens each of them attends to, the rows of rejected
    drafts taken for an average token of their draw. As `prefilled`, it depends on what was cached. None of an
    endpoint, as `passes` and `rows`: not known."""
    speculated: int = 0
    """Tokens decoded ahead and thrown away, or thrown away since memory ran out; `decoded` does not hold them,
    and never depends on them."""
    earlier: tuple[Span, ...] = ()
    """When it was worked on before that, up to its last checkpoint, if it was interrupted."""
    passes: int | None = PER_TOKEN
    """Decoding passes, those of each sequence counted by itself: one that verifies a whole draft counts once.
    As `rows`, it depends on what else was decoded then, and on how busy the engine was. Lines written before
    anything was drafted lack both: each is `decoded` then."""
    rows: int | None = PER_TOKEN
    """Token positions that these passes computed, rejected drafted tokens included."""
    dollars: float | None = None
    """US dollars for all that an endpoint was asked for this response, at the prices that the model's settings
    have; None where they have none, or where there is no bill."""

    def __post_init__(self) -> None:
        _count_per_token(self, self.decoded)


def _count_per_token(record: Draw | Checkpoint | Cost, decoded: int) -> None:
    """Put the number of decoded tokens where passes or rows stand for it. To be called at a record's making."""
    for name in ("passes", "rows"):
        if getattr(record, name) == PER_TOKEN:
            object.__setattr__(record, name, decoded)  # frozen to all others


@dataclass
class Progress:
    """How far a shard is: counted while it is worked on, recorded by its writer, shown by displays."""

    total: int = 0
    """Samples of the shard, as asked for."""
    done: int = 0
    """Those of them that are finished."""
    made_here: int = 0
    """Those that this process made."""
    decoded: int = 0
    """Tokens that this process decoded."""
    proposals: int = 0
    """Metropolis-Hastings proposals decoded, at least in part, in the chains that this process completed."""
    accepted: int = 0
    """Those of them that were accepted."""
    running: int = 0
    """Chains at work, now."""


@dataclass(frozen=True)
class Sample(Keyed):
    """One finished response: a line of samples.jsonl, keyed by (problem, replicate)."""

    text: str
    """The response decoded, special tokens left out."""
    tokens: Tokens
    """Empty where an endpoint gave text: their number is in `reported`."""
    logp: float | None
    """None where it cannot be known: of an endpoint's responses. Likewise `entropy`."""
    entropy: float | None
    finish_reason: FinishReason
    prompt_tokens: int
    cost: Cost
    steps: tuple[Step, ...] = ()
    rounds: tuple[Round, ...] = ()
    reported: Reported | None = None
    """What an endpoint says of it, where it gave it as text."""
    members: Members | None = None
    """None where it was not chosen from several, where no answer can be read without a run of the response, and
    in lines written before they were kept."""

    @property
    def length(self) -> int:
        """Of the response, in tokens."""
        return len(self.tokens) if self.reported is None else self.reported.tokens


@dataclass(frozen=True)
class Score:
    """A verifier's judgement of one response. Neither `correct` nor `preference`: undecided."""

    correct: bool | None = None
    preference: float | None = None
    """Probability, in [0, 1], that the response beats the baseline's."""
    answer: str | None = None
    """The answer or program that was judged; None when the response holds none."""
    reason: str = ""
    """Why this score, in a few words."""
    by: str = ""
    """What decided: the grader and its version, the sandbox's mode, or the judging model."""
    members: tuple[bool | None, ...] = ()
    """Whether each member of the population that the response was chosen from is right, graded by its answer;
    None if undecided. Empty where that is not known."""

    @property
    def value(self) -> float | None:
        """The score as a number in [0, 1]; None when undecided."""
        return self.preference if self.correct is None else float(self.correct)


@dataclass(frozen=True)
class Likelihood(Keyed):
    """One response under a model: a line of likelihoods/<model>.jsonl."""

    retokenised: bool
    """Whether the model reads the run's tokens differently, so that the text was tokenised again."""
    logp: tuple[float, ...]
    """Of each token, nats, at temperature 1 on the whole vocabulary."""
    entropy: tuple[float, ...]
    """Of the next-token distribution at each token's position, nats."""
