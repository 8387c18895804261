"""Multiple choice: the letter in the last box, compared with that of the right option."""

from dataclasses import dataclass

from powerbench.types import Problem, Score
from powerbench.verifiers.boxed import answer_box
from powerbench.verifiers.common import meta_field
from powerbench.verifiers.option_letters import named


@dataclass(frozen=True)
class ChoiceVerifier:
    r"""Decides whether the last \boxed{...} or \fbox{...} holds the right option's letter.

    Its content is read by `named`. A response with no box, or with something else in the last one,
    is wrong: the prompt asks for a letter in a box, and an option's text is no letter.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        return ("options",)

    @property
    def name(self) -> str:
        return "choice"

    @property
    def workers(self) -> int:
        return 1

    def score(self, problem: Problem, text: str) -> Score:
        meta_field(problem, "options", self.name)
        boxed = answer_box(text)
        if boxed is None:
            return Score(correct=False, reason="no boxed answer", by="letter")
        letter = named(boxed, problem.meta["options"])
        if letter is None:
            return Score(correct=False, answer=boxed, reason="no letter boxed", by="letter")
        correct = letter == problem.gold
        reason = "the right letter" if correct else "another letter"
        return Score(correct=correct, answer=letter, reason=reason, by="letter")

    def answer(self, problem: Problem, text: str) -> str | None:
        """The letter, if it names one."""
        boxed = answer_box(text)
        return None if boxed is None else named(boxed, problem.meta.get("options", ()))

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held between calls."""
