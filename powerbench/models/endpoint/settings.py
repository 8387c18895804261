"""Which endpoint is asked, and the limits under which it is."""

import os
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from powerbench.cache import cache_folder
from powerbench.errors import require, require_integer, require_number

OPENAI = "https://api.openai.com/v1"
MAX_SECONDS = 3600.0
"""The largest limit of time, seconds."""


class Names(NamedTuple):
    """How messages name what the user set, and what the endpoint is to them."""

    section: str
    """Of the configuration, that holds the settings."""
    model: str
    """The setting that names the model."""
    who: str
    doing: str
    """What it does with what it is asked: `judging`."""
    done: str
    units: str
    """What it is asked about: `pairs`."""
    instead: str
    """What may be set where there is no key."""

    def fill(self, text: str) -> str:
        """A message whose `{section}` and `{model}` are these names."""
        return text.replace("{section}", self.section).replace("{model}", self.model)

    @property
    def kept(self) -> str:
        """What is not lost."""
        return f"repeat the command: what is {self.done} is kept"


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
    longest_wait: seconds that `backoff` grows to; an endpoint that asks for a longer wait ends all.
    cache: the folder of the answers paid for; None for one in the cache of powerbench.
    budget: US dollars that may be spent, by the usage that the endpoint reports; None for no limit. An
        attempt that ended without an answer is not in it.
    price_prompt, price_completion: US dollars for a million tokens; None where they are not known.
    """

    names: ClassVar[Names]
    folder_name: ClassVar[str]
    """Of the answers, within the cache of powerbench."""

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
    price_prompt: float | None = 10.0
    price_completion: float | None = 30.0

    def __post_init__(self) -> None:
        section = self.names.section
        require_integer(f"{section}.workers", self.workers, 1)
        require_integer(f"{section}.retries", self.retries, 0)
        require_number(f"{section}.timeout", self.timeout, 0, MAX_SECONDS, "seconds")
        if self.requests_per_minute is not None:
            require_number(f"{section}.requests_per_minute", self.requests_per_minute, 0, 1e6)
        for name in ("backoff", "longest_wait", "budget", "price_prompt", "price_completion"):
            value = getattr(self, name)
            ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf
            ok = ok or (value is None and name not in ("backoff", "longest_wait"))
            require(ok, f"{section}.{name} must be a number >= 0, got {value}")
        require(
            self.budget is None or self.priced,
            f"{section}.budget needs prices: set {section}.price_prompt and {section}.price_completion "
            f"(US dollars for a million tokens)",
        )
        require(
            "@" not in self.url,
            f"{section}.base_url must not hold a name or password: {section}.key_env is for the key",
        )
        require(
            _is_url(self.url),
            f"{section}.base_url must be http(s)://host/..., got {self.base_url!r}",
        )

    def require_key(self) -> None:
        """Raise UserError unless the environment holds the key, where one is needed."""
        key, section = self.key(), self.names.section
        require(
            self.key_env is None or bool(key),
            f"{section}.key_env: the environment variable {self.key_env} is not set; set it to the "
            f"endpoint's key, or {self.names.instead}",
        )
        require(
            key is None or (key.isascii() and key.isprintable() and " " not in key),
            f"{section}.key_env: the value of {self.key_env} is no key: it holds a space, a line's "
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
        return cache_folder() / self.folder_name

    @property
    def priced(self) -> bool:
        """Whether both prices are known."""
        return self.price_prompt is not None and self.price_completion is not None

    def price(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars; None where the prices are not known."""
        if self.price_prompt is None or self.price_completion is None:
            return None
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / 1e6


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
