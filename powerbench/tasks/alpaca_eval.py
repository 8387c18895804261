"""AlpacaEval 2.0: 805 instructions, judged against GPT-4-turbo's responses (Dubois et al. 2024)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from powerbench.tasks.common import (
    Row,
    provenance,
    read_file,
    read_hub,
    require_kind,
    require_settings,
    through_chat,
    unique,
)
from powerbench.types import Problem, Prompt

STYLES = ("official", "chat")


@dataclass(frozen=True)
class AlpacaEval:
    """Problems in the format of AlpacaEval's outputs: instruction, output, generator.

    path: a local file instead of the hub; `bundled:<name>` is one that comes with powerbench.
    file: the file on the hub; `datasets` refuses the script beside it, so it is read as it is.
    prompt_style: `official` is the instruction as raw text for every model, `chat` one user turn.
    chat: `model` (as prompt_style has it), `always` or `never`.
    proposal_temperature: the paper sets 0.5 for this task.
    stop_tokens: strings of one token each that end a response, beside the model\'s own.
    """

    name: str = "alpaca_eval"
    path: str | None = None
    hub: str = "tatsu-lab/alpaca_eval"
    revision: str = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
    file: str = "alpaca_eval_gpt4_baseline.json"
    prompt_style: str = "official"
    chat: str = "model"
    proposal_temperature: float | None = 0.5
    stop_tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_settings(self.prompt_style, STYLES, self.chat, self.proposal_temperature)

    def problems(self, kind: str) -> list[Problem]:
        require_kind(kind)
        return list(unique(self._problem(str(i), row) for i, row in enumerate(self.rows)))

    def source(self) -> Mapping[str, Any]:
        if self.path is None:
            return provenance(self.rows, hub=self.hub, revision=self.revision, file=self.file)
        return provenance(self.rows, path=self.path)

    @cached_property
    def rows(self) -> list[Row]:
        """The data set as it is stored."""
        if self.path is None:
            return read_hub(self.hub, self.revision, self._load)
        return read_file(self.path)

    def _load(self) -> Iterable[Mapping[str, Any]]:
        from huggingface_hub import hf_hub_download  # slow to import

        file = hf_hub_download(self.hub, self.file, revision=self.revision, repo_type="dataset")
        return json.loads(Path(file).read_text(encoding="utf-8"))

    def _problem(self, id: str, row: Row) -> Problem:
        instruction = row.text("instruction")
        return Problem(
            id=id,
            prompt=Prompt(instruction, through_chat(self.chat, style=self.prompt_style == "chat")),
            gold=row.text("output"),
            meta={"instruction": instruction, "generator": row.text("generator")},
        )
