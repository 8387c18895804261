"""Which sampler answers a request, with which settings: the server's, as far as the request does not say.

temperature: a sampler with a temperature of its own takes it; one with an alpha has alpha = 1 / temperature,
for its target is p^alpha; one that draws nothing takes 0 alone, any other 1 alone. What contradicts is refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple, get_type_hints

from hydra.utils import get_class
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from powerbench.config import RunConfig, compose, options
from powerbench.errors import UserError, require, unknown
from powerbench.samplers.common import Sampler

MAX_INTEGER = 4096
"""The largest integer that a request may set: what a sampler asks for at once has to fit memory."""


class Choice(NamedTuple):
    """A sampler, and what it was made of."""

    name: str
    sampler: Sampler
    settings: Mapping[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """As a request would ask for it."""
        return {"name": self.name, **self.settings}


@dataclass
class Samplers:
    """The samplers that requests may choose from.

    config: the server's; its sampler is the default, and its other settings are those of all samplers.
    allowed: the names that a request may choose; the server's own is among them in any case.
    settable: whether a request may set a sampler's settings, max_tokens and temperature apart.
    """

    config: RunConfig
    allowed: Sequence[str]
    settable: bool = True
    _defaults: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _composing: Lock = field(default_factory=Lock, repr=False)  # Hydra has one global state

    def __post_init__(self) -> None:
        for name in self.allowed:
            if name not in options("sampler"):
                raise unknown("sampler", name, options("sampler"))
        self.own = self.config.choices["sampler"]
        self.allowed = sorted({*self.allowed, self.own})
        self._defaults[self.own] = _plain(self.config)

    @property
    def max_tokens(self) -> int:
        """The longest answer that a request may ask for, in tokens, and the one if it does not say."""
        return self._defaults[self.own]["max_tokens"]

    def choose(
        self,
        asked: str | Mapping[str, Any] | None,
        max_tokens: int | None,
        temperature: float | None,
    ) -> Choice:
        """The sampler of a request. Raises UserError for one that is unknown, not allowed or impossible."""
        given = {"name": asked} if isinstance(asked, str) else dict(asked or {})
        name = given.pop("name", self.own)
        if name not in self.allowed:
            raise unknown("sampler", str(name), self.allowed)
        require(
            self.settable or not given,
            f"this server does not let requests set a sampler's settings: {', '.join(given)}",
        )
        require("max_tokens" not in given, "max_tokens is a field of the request itself")
        defaults = self._defaults_of(name)
        kind: type[Sampler] = get_class(defaults["_target_"])
        settings = {k: v for k, v in defaults.items() if k != "_target_"}
        _check(name, kind, settings, given)
        settings |= given
        settings["max_tokens"] = self._length(max_tokens)
        if temperature is not None:
            settings |= at_temperature(name, kind, settings, given, temperature)
        if "blocks" in settings and "blocks" not in given:
            settings["blocks"] = blocks(settings["max_tokens"], settings["blocks"])
        return Choice(name, kind(**settings), settings)

    def _length(self, asked: int | None) -> int:
        require(
            asked is None or asked <= self.max_tokens,
            f"max_tokens={asked} is more than the {self.max_tokens} that this server was started with",
        )
        return asked or self.max_tokens

    def _defaults_of(self, name: str) -> dict[str, Any]:
        with self._composing:
            if name not in self._defaults:
                others = [o for o in self.config.overrides if not _is_of_sampler(o)]
                self._defaults[name] = _plain(compose([*others, f"sampler={name}"]))
            return self._defaults[name]


def at_temperature(
    name: str,
    kind: type[Sampler],
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    temperature: float,
) -> dict[str, Any]:
    """The settings that a temperature stands for. Raises UserError where it contradicts the sampler, or what
    the request itself sets."""
    own = "temperature" if "temperature" in settings else "alpha" if "alpha" in settings else None
    if own is None:
        only = 0 if kind.deterministic else 1
        require(
            temperature == only,
            f"temperature={temperature:g} contradicts sampler={name}, whose temperature is {only}; leave it "
            "out, or send another sampler",
        )
        return {}
    require(
        temperature > 0,
        f"temperature=0 contradicts sampler={name}: leave it out, or send sampler=greedy",
    )
    value = temperature if own == "temperature" else 1 / temperature
    if own in given:
        require(
            math.isclose(given[own], value),
            f"temperature={temperature:g} contradicts sampler.{own}={given[own]}: send one of them",
        )
    near = settings[own] is not None and math.isclose(settings[own], value)
    return {} if near else {own: value}


def blocks(max_tokens: int, most: int) -> int:
    """The largest number of equal blocks of max_tokens tokens that is not above `most`."""
    return max(k for k in range(1, min(most, max_tokens) + 1) if max_tokens % k == 0)


def _check(
    name: str, kind: type[Sampler], settings: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Raise UserError for a setting that the sampler lacks, or a value of another type.

    Values are given to the sampler as they are, never to Hydra, which would build what they name.
    """
    hints = get_type_hints(kind)
    for setting, value in given.items():
        if setting not in settings:
            raise unknown(f"setting of sampler={name}", setting, settings)
        require(
            not isinstance(value, int) or abs(value) <= MAX_INTEGER,
            f"sampler.{setting}={value} is more than a request may ask for: {MAX_INTEGER}",
        )
        try:
            TypeAdapter(hints[setting]).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(f"sampler.{setting}={value!r}: {reason}") from error


def _plain(config: RunConfig) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(config.values.sampler, resolve=True)
    return found


def _is_of_sampler(override: str) -> bool:
    """Whether a setting of the command is for the server's own sampler alone."""
    name = override.partition("=")[0].lstrip("+~")
    return name in ("sampler", "without") or name.startswith("sampler.")
