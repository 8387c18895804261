"""Mathematical answers: the last boxed expression, compared with the gold answer as mathematics."""

import re
from dataclasses import dataclass
from functools import cached_property

from powerbench.errors import require
from powerbench.types import Problem, Score
from powerbench.verifiers.common import asked
from powerbench.verifiers.worker import Worker, WorkerError

BRACES = re.compile(r"\\(?P<box>boxed|fbox)\s*\{|\\.|\{|\}", re.DOTALL)
MARKUP = re.compile(r"^\s*\\[(\[]|\\[)\]]\s*$|\\?\$|\\!")
THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))")
BASE = re.compile(r"(?<!\w)(?P<digits>-?\d\w*?)_\{?(?P<base>\d+)\}?$")


def equal(gold: str, answer: str) -> bool | None:
    """Whether two cleaned answers are the same mathematical object, as math-verify sees it.

    None if it cannot read the gold answer.

    May take forever: it is made to run in a worker, which is why math-verify's own alarms are off.
    """
    from math_verify import parse, verify

    expressions = [parse(f"${text}$", parsing_timeout=None) for text in (gold, answer)]
    if not expressions[0]:
        return None
    return bool(verify(*expressions, timeout_seconds=None, raise_on_error=True))


@dataclass(frozen=True)
class MathVerifier:
    r"""Decides whether the last \boxed{...} or \fbox{...} of a response equals the gold answer.

    timeout: seconds for one comparison; one that needs longer is undecided.
    """

    name: str = "math"
    timeout: float = 5.0

    def __post_init__(self) -> None:
        require(self.timeout > 0, f"verifier.timeout must be > 0 seconds, got {self.timeout}")

    def score(self, problem: Problem, text: str) -> Score:
        asked(problem, "subject", self.name)
        boxed = last_boxed(text)
        if boxed is None:
            return Score(correct=False, reason="no boxed answer")
        gold, answer = clean(problem.gold), clean(boxed)
        if gold == answer:
            return Score(correct=True, extracted=boxed, reason="same text")
        if in_base := BASE.search(gold):  # math-verify reads 445_6 as 445
            other = BASE.search(answer)
            same = other is not None and other.groups() == in_base.groups()
            return Score(correct=same, extracted=boxed, reason="equal" if same else "not equal")
        try:
            same = self._worker.call(gold, answer, timeout=self.timeout)
        except WorkerError as failure:
            return Score(extracted=boxed, reason=str(failure))
        if same is None:
            return Score(extracted=boxed, reason="the gold answer cannot be parsed")
        return Score(correct=same, extracted=boxed, reason="equal" if same else "not equal")

    def close(self) -> None:
        self._worker.close()

    @cached_property
    def _worker(self) -> Worker:
        return Worker(equal, imports=("math_verify",))


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} whose braces balance; None without one.

    Of nested boxes it is the inner one.
    """
    found: tuple[int, str | None] = (-1, None)
    open_braces: list[tuple[int, bool]] = []
    for brace in BRACES.finditer(text):
        if brace["box"] or brace[0] == "{":
            open_braces.append((brace.end(), brace["box"] is not None))
        elif brace[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and start > found[0]:
                found = start, text[start : brace.start()]
    return found[1]


def clean(answer: str) -> str:
    r"""The answer without math delimiters, `\!`, thin spaces between thousands, and one final period."""
    bare = THOUSANDS.sub("", MARKUP.sub("", answer)).strip()
    return bare.removesuffix(".").strip()
