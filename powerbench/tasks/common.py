"""What tasks share: the protocol, what is made of a data set's rows, and checks of settings."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from powerbench.errors import require, unknown
from powerbench.tasks.reading import Row
from powerbench.types import KINDS, Problem

CHAT = ("model", "always", "never")


class Task(Protocol):
    """A benchmark. Its fields are settings."""

    @property
    def name(self) -> str:
        """Names the run folder."""
        ...

    @property
    def proposal_temperature(self) -> float | None:
        """What the paper sets for this task; None: 1/alpha."""
        ...

    @property
    def stop_tokens(self) -> Sequence[str]:
        """Strings of one token each that end a response, beside the model's own stop tokens."""
        ...

    def problems(self, kind: str) -> list[Problem]:
        """All problems, prompted for a model of this kind: `base`, `rl` or `instruct`."""
        ...

    def source(self) -> Mapping[str, Any]:
        """Provenance: where the data came from, and the sha256 of its content."""
        ...


def provenance(rows: Sequence[Row], **origin: str) -> dict[str, Any]:
    """Where the rows came from, how many they are, and the sha256 of their canonical JSON.

    The digest is that of the content, so the hub and a local copy of it give the same.
    """
    records = [row.record for row in rows]
    canonical = json.dumps(
        records, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return {**origin, "rows": len(rows), "sha256": digest}


def unique(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems as they come. Raises UserError at an id that came before."""
    seen = set()
    for problem in problems:
        require(problem.id not in seen, f"task: the problem id {problem.id!r} occurs twice")
        seen.add(problem.id)
        yield problem


def through_chat(chat: str, style: bool) -> bool:
    """Whether a prompt is a chat turn: as its style has it, unless task.chat says otherwise."""
    return style if chat == "model" else chat == "always"


def require_style(prompt_style: str, styles: Sequence[str]) -> None:
    """Raise UserError unless a task has this style."""
    if prompt_style not in styles:
        raise unknown("task.prompt_style", prompt_style, styles)


def require_settings(chat: str, proposal_temperature: float | None) -> None:
    """Raise UserError unless the settings that all tasks have are sound."""
    if chat not in CHAT:
        raise unknown("task.chat", str(chat), CHAT)
    require(
        proposal_temperature is None or 0 < proposal_temperature < math.inf,
        f"task.proposal_temperature must be > 0 and finite (or null for 1/alpha), "
        f"got {proposal_temperature}",
    )


def require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise unknown("model.kind", kind, KINDS)
