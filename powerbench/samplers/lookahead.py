"""The loop of Scalable Power Sampling: candidates, of which one is chosen by what its futures are worth."""

from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from powerbench.errors import require_integer
from powerbench.samplers.common import Response, Sampler, require_alpha, require_temperature
from powerbench.samplers.jackknife import jackknifed, plain
from powerbench.samplers.population import record, recorded
from powerbench.samplers.rollouts import futures
from powerbench.types import Chain, Choose, Context, Request, Save


class Candidates(NamedTuple):
    """Continuations of one response, each by a block or up to its end."""

    responses: Sequence[Response]
    log_weights: Sequence[float]
    """Of each, nats, without its future."""


@dataclass(frozen=True)
class Lookahead(Sampler):
    """Settings: K, M and H are `kept`, `rollouts` and `lookahead`.

    rollout_temperature: of the rollouts; None means 1/alpha; other than 1, they are weighed by p^alpha / q, so
        that zeta stays.
    jackknife: remove the O(1/M) bias of the normalised weights (`jackknifed`).
    """

    unit: ClassVar[str] = "block"
    """What is chosen at a time: names the choice among the chain's draws."""

    alpha: float = 4.0
    kept: int = 8
    rollouts: int = 8
    lookahead: int = 192
    rollout_temperature: float | None = 1.0
    jackknife: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_alpha(self.alpha)
        for name in ("kept", "rollouts", "lookahead"):
            require_integer(f"sampler.{name}", getattr(self, name), 1)
        require_temperature("rollout_temperature", self.rollout_temperature)

    @property
    @abstractmethod
    def size(self) -> int:
        """Of a block, tokens."""

    @property
    def saved_every(self) -> int:
        """Tokens between two saved states: a multiple of a block's."""
        return self.size

    @abstractmethod
    def offered(self, x: Response, k: int, context: Context) -> Generator[Request, Any, Candidates]:
        """The candidates for block k, which continue x."""

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Block by block, from the start or from a saved state."""
        x = Response.of_state(state["response"]) if state else Response()
        rounds = recorded(state["rounds"]) if state else []
        ys: Sequence[Response] = ()
        while not self._complete(x):
            k, start = len(rounds), len(x)
            ys, log_weights = yield from self.offered(x, k, context)
            after = yield from futures(
                ys,
                ("rollout", k),
                min(start + self.size + self.lookahead, self.max_tokens),
                context,
                count=self.rollouts,
                alpha=self.alpha,
                tau=self.rollout_temperature or 1 / self.alpha,
            )
            chances = (jackknifed if self.jackknife else plain)(log_weights, after)
            chosen = yield Choose((self.unit, k), chances)
            x = ys[chosen]
            rounds.append(record(k, start, ys, chances, (chosen,)))
            if len(x) % self.saved_every == 0 and not self._complete(x):
                yield Save({"response": x.state(), "rounds": [list(each) for each in rounds]})
        return x.outcome(rounds=rounds, members=ys)

    def _complete(self, x: Response) -> bool:
        return x.finished or len(x) == self.max_tokens
