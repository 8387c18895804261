"""Any set of programming problems with tests."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from powerbench.errors import require
from powerbench.tasks.column_set import FEW_SHOT, QUESTION, ColumnSet
from powerbench.tasks.python_tests import called_in, check_of, script_of
from powerbench.tasks.reading import Row
from powerbench.types import Problem

TESTS = "{tests}"


@dataclass(frozen=True, kw_only=True)
class CodeSet(ColumnSet):
    """Functions to write or complete, run in the sandbox against their tests by verifier=code.

    question: what is to be written, in words, or the beginning of the function, to be completed.
    tests: the column of the tests: a list of asserts, statements in one text, or a `check(candidate)`.
    entry_point: the column of the function's name; None: the function that the tests call.
    setup: a column of statements that run before the tests, such as imports, or a list of them.
    solution: the column of a reference solution.
    prompt_style: `plain`, which shows the tests and asks for a fenced block; `raw`, the question as it is;
        `few_shot`, for which an example has the field `tests` too. A template of your own may hold {tests}.
    """

    STYLES: ClassVar[Mapping[str, str]] = {
        "plain": (
            f"{QUESTION}\n\nYour code should pass these tests:\n\n{TESTS}\n\n"
            "Answer with the whole function, imports included, in one fenced code block."
        ),
        "raw": QUESTION,
    }
    RAW: ClassVar[tuple[str, ...]] = (FEW_SHOT, "raw")

    tests: str | Sequence[str] = "tests"
    entry_point: str | None = None
    setup: str | Sequence[str] | None = None
    solution: str | None = None
    examples: str | None = "bundled:examples/code.jsonl"

    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        return {
            "tests": self.tests,
            "entry_point": self.entry_point,
            "setup": self.setup,
            "solution": self.solution,
        }

    def problem(self, row: Row, id: str, kind: str) -> Problem:
        question, tests = self.text_of(row, self.question), script_of(row, self.tests)
        require(bool(tests.strip()), f"{row.where}: {self.tests!r} is blank; see task.tests")
        setup = "" if self.setup is None else script_of(row, self.setup)
        solution = "" if self.solution is None else row.cell(self.solution)
        name = (
            called_in(row, tests, setup, solution)
            if self.entry_point is None
            else row.cell(self.entry_point).strip()
        )
        require(
            name.isidentifier(),
            f"{row.where}: {self.entry_point!r} must be a function's name, got {name!r}; see task.entry_point",
        )
        stub = re.search(rf"^\s*(?:async\s+)?def\s+{name}\b", question, re.MULTILINE) is not None
        meta: dict[str, Any] = {
            "prompt": question if stub else "",
            "entry_point": name,
            "test": check_of(tests, name, setup, solution),
            "problem": question,
        }
        shown = self._shown(question, tests) if self.few_shot else question
        return Problem(id=id, prompt=self.asked(shown, kind, tests=tests), gold=solution, meta=meta)

    def example(self, shown: str, solution: str | None) -> str:
        return f"{shown}\n[BEGIN]\n" + ("" if solution is None else f"{solution}\n[DONE]")

    def example_question(self, row: Row) -> str:
        return self._shown(row.filled("question"), script_of(row, "tests"))

    def _shown(self, question: str, tests: str) -> str:
        """What `few_shot` shows of a problem."""
        return f"Task: {question}\nYour code should pass these tests:\n\n{tests}"
