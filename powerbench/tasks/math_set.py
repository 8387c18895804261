"""Any set of mathematical problems, and those that are read so: GSM8K, AIME, AMC, MATH."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from powerbench.errors import UserError, unknown
from powerbench.tasks.column_set import QUESTION, ColumnSet
from powerbench.tasks.math_prompts import STYLES
from powerbench.tasks.reading import Row
from powerbench.types import Problem
from powerbench.verifiers.boxed import last_boxed

BARE_BOX = re.compile(r"\\boxed(?:\s+|(?=[\d\\-]))(?![\s{])([^$]+)(?=\$)")
"""A box without braces, up to the end of its formula."""
LONGEST = 100
"""Digits of a number."""
LEVEL = re.compile(r"Level (\d)")
"""As MATH writes a problem's level."""


def number(text: str) -> str | None:
    """A number without signs of money and of thousands, 27.0 as 27; None for anything else."""
    try:
        value = Decimal(text.replace(",", "").replace("$", "").strip())
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value.adjusted()) > LONGEST:
        return None
    return str(int(value)) if value == value.to_integral_value() else f"{value:f}"


def aime(text: str) -> str | None:
    """An answer of the AIME, an integer from 000 to 999, without leading zeros; None for anything else."""
    whole = number(text)
    return whole if whole is not None and whole.isdecimal() and int(whole) <= 999 else None


def boxed(solution: str) -> str | None:
    r"""The last box of a solution; of MATH some have none of its braces, as `\boxed 4$`."""
    return last_boxed(BARE_BOX.sub(r"\\boxed{\1}", solution))


def gsm8k(solution: str) -> str | None:
    """The number after the `####` at the end of a solution of GSM8K; None without one."""
    _, mark, answer = solution.rpartition("####")
    return number(answer) if mark else None


FORMS: Mapping[str, Callable[[str], str | None]] = {
    "as_is": lambda text: text,
    "number": number,
    "aime": aime,
    "gsm8k": gsm8k,
    "boxed": boxed,
}
EXPECTED = {
    "as_is": "hold an answer",
    "number": "be a number",
    "aime": "be an integer from 000 to 999",
    "gsm8k": "end in #### and a number",
    "boxed": "hold a \\boxed{} answer",
}


@dataclass(frozen=True, kw_only=True)
class MathSet(ColumnSet):
    r"""Problems with a gold answer, compared with the last \boxed{} of a response by verifier=math.

    answer: the column of the gold answer, or of a solution that holds it.
    answer_form: `as_is`, LaTeX or a number; `number`, where 27.0 and 1,000 are 27 and 1000; `aime`, an
        integer from 000 to 999; `gsm8k`, a solution that ends in `#### 18`; `boxed`, one that ends in a
        \boxed{}.
    subject, level: columns that go into the problem's meta; `Level 3` is 3.
    prompt_style: `plain` and `official` as of MATH500 (the latter with the doubled braces of the official
        code); `question_first`, the question before the instruction, as the models' own evaluations have it;
        `few_shot`.
    """

    STYLES: ClassVar[Mapping[str, str]] = {
        **{style: STYLES[style].replace("{problem}", QUESTION) for style in ("plain", "official")},
        "question_first": (
            f"{QUESTION}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
        ),
    }

    answer: str | Sequence[str] = "answer"
    answer_form: str = "as_is"
    subject: str | None = None
    level: str | None = None
    examples: str | None = "bundled:examples/math.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer_form not in FORMS:
            raise unknown("task.answer_form", self.answer_form, FORMS)

    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        return {"answer": self.answer, "subject": self.subject, "level": self.level}

    def problem(self, row: Row, id: str, kind: str) -> Problem:
        question = self.text_of(row, self.question)
        meta: dict[str, Any] = {"subject": row.cell(self.subject) if self.subject else ""}
        if self.level is not None:
            level = row.cell(self.level)
            match = LEVEL.fullmatch(level)
            digits = match[1] if match else level
            meta["level"] = int(digits) if digits.isdecimal() else level
        meta["problem"] = question
        return Problem(
            id=id, prompt=self.asked(question, kind), gold=self._gold(row, id), meta=meta
        )

    def example(self, shown: str, solution: str | None) -> str:
        return f"Problem: {shown}\nSolution:" + ("" if solution is None else f" {solution}")

    def _gold(self, row: Row, id: str) -> str:
        stored = self.text_of(row, self.answer)
        answer = FORMS[self.answer_form](stored)
        if answer is None:
            raise UserError(
                f"{row.where}: the answer of problem {id!r} must {EXPECTED[self.answer_form]}, got "
                f"{stored[-60:]!r}; see task.answer_form"
            )
        return Row({"answer": answer}, row.where).answer("answer")
