"""MBPP: small Python functions, each with three asserts (Austin et al. 2021, arXiv 2108.07732)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from powerbench.errors import require
from powerbench.tasks.code_set import TESTS, CodeSet
from powerbench.tasks.column_set import FEW_SHOT, QUESTION
from powerbench.tasks.reading import Row, read_file
from powerbench.types import Prompt

TEST_SPLIT = range(11, 511)
EXAMPLES = (2, 3, 4)
"""The task ids of the prompt's examples (Austin et al., section 4.1)."""
TASK = (
    f"You are an expert Python programmer, and here is your task: {QUESTION} Your code should pass these "
    f"tests:\n\n{TESTS}"
)


@dataclass(frozen=True, kw_only=True)
class MBPP(CodeSet):
    """Problems in the format of MBPP: task_id, text, code, test_list, test_setup_code.

    Task ids 11 to 510 are the test split, and the only ones that are asked, whatever a local file holds; its
    examples, 2 to 4, come from the data set itself. The sanitised set (prompt, test_imports) is read as well.

    prompt_style: `official`, the paper's prompt after its three examples, whose code stands between [BEGIN] and
        [DONE], as raw text; `plain`, the same task without examples, asking for a fenced block, a chat turn for
        tuned models.
    """

    STYLES: ClassVar[Mapping[str, str]] = {
        "official": f"{TASK}\n[BEGIN]\n",
        "plain": (
            f"{TASK}\n\nAnswer with the whole function, imports included, in one fenced code block."
        ),
    }
    RAW: ClassVar[tuple[str, ...]] = ("official", FEW_SHOT)

    name: str | None = "mbpp"
    question: str | Sequence[str] = ("text", "prompt")
    tests: str | Sequence[str] = "test_list"
    setup: str | Sequence[str] | None = ("test_setup_code", "test_imports")
    solution: str | None = "code"
    id: str | None = "task_id"
    prompt_style: str = "official"

    @cached_property
    def rows(self) -> Sequence[Row]:
        return [row for row in self._every if self._task_id(row) in TEST_SPLIT]

    def asked(self, shown: str, kind: str, **fields: str) -> Prompt:
        prompt = super().asked(shown, kind, **fields)
        if self.prompt is not None or self.prompt_style != "official":
            return prompt
        return replace(prompt, text=self._worked_official + prompt.text)

    @cached_property
    def _worked_official(self) -> str:
        examples = {self._task_id(row): row for row in self._every}
        there = all(task_id in examples for task_id in EXAMPLES)
        require(
            there,
            f"task.prompt_style=official shows the problems 2, 3 and 4 of MBPP, which {self.file} lacks; "
            f"take the whole file, or set task.prompt_style=plain",
        )
        return "".join(self._solved(examples[task_id]) for task_id in EXAMPLES)

    def _solved(self, row: Row) -> str:
        tests = self._script(row, self.tests)
        text = self.STYLES["official"].replace(TESTS, tests)
        text = text.replace(QUESTION, self.text_of(row, self.question))
        code = row.filled(str(self.solution)).replace("\r\n", "\n").rstrip()
        return f"{text}{code}\n[DONE]\n"

    @cached_property
    def _every(self) -> Sequence[Row]:
        """The rows of a local file, or of the two splits on the hub."""
        if self.file is not None:
            return read_file(self.file)
        return [*self.read("prompt"), *self.read(self.split)]

    def _task_id(self, row: Row) -> int:
        task_id = row.cell(str(self.id))
        require(
            task_id.isdecimal(),
            f"{row.where}: {self.id!r} must be a number of MBPP, got {task_id!r}; see task.id",
        )
        return int(task_id)
