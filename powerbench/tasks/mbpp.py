"""MBPP: small Python functions, each with three asserts (Austin et al. 2021, arXiv 2108.07732)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from powerbench.errors import require
from powerbench.tasks.column_set import QUESTION, ColumnSet
from powerbench.tasks.common import require_style
from powerbench.tasks.python_tests import called_in, check_of, script_of
from powerbench.tasks.reading import Row, read_file
from powerbench.types import Problem, Prompt

TEST_SPLIT = range(11, 511)
EXAMPLES = (2, 3, 4)
"""The task ids of the prompt's examples (Austin et al., section 4.1)."""
TASK = (
    f"You are an expert Python programmer, and here is your task: {QUESTION} Your code should pass these "
    "tests:\n\n{tests}"
)


@dataclass(frozen=True, kw_only=True)
class MBPP(ColumnSet):
    """Problems in the format of MBPP: task_id, text, code, test_list, test_setup_code.

    Task ids 11 to 510 are the test split, and the only ones that are asked, whatever a local file holds; its
    examples, 2 to 4, come from the data set itself. The sanitised set (prompt, test_imports) is read as well.

    prompt_style: `official`, the paper's prompt after its three examples, whose code stands between [BEGIN] and
        [DONE], as raw text; `plain`, the same task without examples, asking for a fenced block, a chat turn for
        tuned models. A template of your own may hold {tests}.
    """

    STYLES: ClassVar[Mapping[str, str]] = {
        "official": TASK,
        "plain": (
            f"{TASK}\n\nAnswer with the whole function, imports included, in one fenced code block."
        ),
    }
    RAW: ClassVar[tuple[str, ...]] = ("official",)

    name: str | None = "mbpp"
    question: str | Sequence[str] = ("text", "prompt")
    tests: str = "test_list"
    setup: Sequence[str] = ("test_setup_code", "test_imports")
    solution: str = "code"
    id: str | None = "task_id"
    prompt_style: str = "official"

    def __post_init__(self) -> None:
        require_style(self.prompt_style, tuple(self.STYLES))
        super().__post_init__()

    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        return {"tests": self.tests, "setup": self.setup, "solution": self.solution}

    def problem(self, row: Row, id: str, kind: str) -> Problem:
        question, tests = self.text_of(row, self.question), script_of(row, self.tests)
        setup, solution = script_of(row, self.setup), row.filled(self.solution)
        name = called_in(row, tests, setup, solution)
        test = check_of(tests, name, setup, solution)
        return Problem(
            id=id,
            prompt=self.asked(question, kind, tests=tests),
            gold=solution,
            meta={"prompt": "", "entry_point": name, "test": test, "problem": question},
        )

    def example(self, shown: str, solution: str | None) -> str:
        return f"{shown}\n[BEGIN]\n" + ("" if solution is None else f"{solution}\n[DONE]\n")

    @cached_property
    def rows(self) -> Sequence[Row]:
        return [row for row in self._every if self._task_id(row) in TEST_SPLIT]

    def asked(self, shown: str, kind: str, **fields: str) -> Prompt:
        prompt = super().asked(shown, kind, **fields)
        if self.prompt is not None or self.prompt_style != "official":
            return prompt
        return replace(prompt, text=self._solved_examples + self.example(prompt.text, None))

    @cached_property
    def _solved_examples(self) -> str:
        examples = {self._task_id(row): row for row in self._every}
        there = all(task_id in examples for task_id in EXAMPLES)
        require(
            there,
            f"task.prompt_style=official shows the problems 2, 3 and 4 of MBPP, which {self.file} lacks; "
            f"take the whole file, or set task.prompt_style=plain",
        )
        return "".join(self._solved(examples[task_id]) for task_id in EXAMPLES)

    def _solved(self, row: Row) -> str:
        shown = TASK.replace("{tests}", script_of(row, self.tests))
        shown = shown.replace(QUESTION, self.text_of(row, self.question))
        code = row.filled(self.solution).replace("\r\n", "\n").rstrip()
        return self.example(shown, code)

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
