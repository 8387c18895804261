"""A model that is reachable by an API alone: `model=endpoint`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from powerbench.errors import UserError, require
from powerbench.models.base import Availability, Tokenizer
from powerbench.models.endpoint.settings import EndpointSettings, Names
from powerbench.models.files import require_name
from powerbench.models.token_logprobs import Scorer
from powerbench.types import KINDS

LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
OURS = (
    "model",
    "messages",
    "prompt",
    "stop",
    "n",
    "stream",
    "logprobs",
    "top_logprobs",
    *LENGTH_FIELDS,
)
"""What a request says by the model's and the sampler's own settings."""


@dataclass(frozen=True, kw_only=True)
class EndpointModel(EndpointSettings):
    """A model behind an OpenAI-compatible endpoint: it gives whole responses as text, and no weights.

    name: names the run folder; None takes the last part of the id.
    id: as the endpoint knows it.
    kind: how benchmarks address it: `base`, `rl` or `instruct` (see the tasks' prompt styles).
    length_field: what the endpoint calls the longest response, in tokens.
    options: further fields of every request, such as reasoning_effort. `temperature: null` leaves the
        temperature out, for models that refuse to be told that it is 1.
    """

    names: ClassVar[Names] = Names(
        section="model",
        model="model.id",
        who="the endpoint",
        doing="asking",
        done="answered",
        units="answers",
        instead="set model.key_env to null if it needs none",
    )
    folder_name: ClassVar[str] = "endpoint"

    name: str | None = None
    id: str
    kind: str = "instruct"
    length_field: str = "max_tokens"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            isinstance(self.id, str) and bool(self.id.strip()),
            f"model.id must name a model as the endpoint knows it, got {self.id!r}",
        )
        for name, known in (("kind", KINDS), ("length_field", LENGTH_FIELDS)):
            value = getattr(self, name)
            require(
                value in known, f"model.{name} must be one of {', '.join(known)}, got {value!r}"
            )
        super().__post_init__()
        for option, value in self.options.items():
            ours = option in OURS or (option == "temperature" and value is not None)
            require(
                not ours,
                f"model.options must not set {option}: other settings say what is asked for",
            )
        short = re.sub(r"[^\w.+-]", "-", self.id.rstrip("/").rpartition("/")[2])
        object.__setattr__(self, "name", require_name(str(self.name or short)))

    @property
    def context_length(self) -> int:
        raise UserError(f"how long the context of {self.name} is, its endpoint does not say")

    def tokenizer(self) -> Tokenizer:
        raise UserError(
            f"the tokens of {self.name} are not known, as it is behind an endpoint: what needs them or "
            f"their probabilities (verifier=judge_standin, rescore-likelihood) takes another model"
        )

    def identity(self) -> Mapping[str, Any]:
        """The id and the endpoint: no weights can be named."""
        options = {"options": dict(self.options)} if self.options else {}
        return {"id": self.id, "endpoint": self.url, **options}

    def size(self) -> None:
        """Not known."""

    def driven_by(self, engine: str) -> bool:
        return engine == "endpoint"

    def available(self) -> Availability:
        return Availability(False, f"not on this machine: {self.id} is asked at {self.url}")

    def scorer(self, device: str) -> Scorer:
        raise UserError(
            f"{self.name} is behind an endpoint, which scores no given texts: rescore-likelihood takes "
            f"a model whose weights are at hand"
        )
