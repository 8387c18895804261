"""MATH500: 500 problems of the MATH test set whose answers are boxed (Lightman et al. 2023)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from powerbench.tasks.common import (
    provenance,
    require_kind,
    require_settings,
    require_style,
    through_chat,
    unique,
)
from powerbench.tasks.math_prompts import STYLES
from powerbench.tasks.reading import Row, read_file, read_hub
from powerbench.types import Problem, Prompt


@dataclass(frozen=True)
class Math500:
    """Problems in the format of MATH-500: problem, answer, subject, level, unique_id.

    path: a local file instead of the hub; `bundled:<name>` is one that comes with powerbench.
    prompt_style: `official`, with its doubled braces, or `plain`.
    chat: `model` (raw text for a base model, one user turn for the others), `always` or `never`.
    stop_tokens: strings of one token each that end a response, beside the model's own.
    """

    name: str = "math500"
    path: str | None = None
    hub: str = "HuggingFaceH4/MATH-500"
    revision: str = "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
    prompt_style: str = "official"
    chat: str = "model"
    proposal_temperature: float | None = None
    stop_tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_style(self.prompt_style, tuple(STYLES))
        require_settings(self.chat, self.proposal_temperature)

    def problems(self, kind: str) -> list[Problem]:
        require_kind(kind)
        return list(unique(self._problem(row, kind) for row in self.rows))

    def source(self) -> Mapping[str, Any]:
        if self.path is None:
            return provenance(self.rows, hub=self.hub, revision=self.revision)
        return provenance(self.rows, path=self.path)

    @cached_property
    def rows(self) -> list[Row]:
        """The data set as it is stored."""
        if self.path is None:
            return read_hub(self.hub, self.revision, self._load)
        return read_file(self.path)

    def _load(self) -> Iterable[Mapping[str, Any]]:
        from datasets import load_dataset  # slow to import

        return load_dataset(self.hub, revision=self.revision, split="test")

    def _problem(self, row: Row, kind: str) -> Problem:
        text = STYLES[self.prompt_style].replace("{problem}", row.filled("problem"))
        return Problem(
            id=row.filled("unique_id"),
            prompt=Prompt(text, through_chat(self.chat, kind != "base")),
            gold=row.answer("answer"),
            meta={field: row[field] for field in ("subject", "level", "problem")},
        )
