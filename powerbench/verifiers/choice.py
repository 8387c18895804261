"""Multiple choice: the letter that a response gives, compared with that of the right option."""

from dataclasses import dataclass

from powerbench.errors import unknown
from powerbench.types import Problem, Score
from powerbench.verifiers.boxed import answer_box
from powerbench.verifiers.common import meta_field
from powerbench.verifiers.option_letters import last_free, named

MODES = ("default", "official")


@dataclass(frozen=True)
class ChoiceVerifier:
    r"""Decides whether a response gives the right option's letter.

    mode: `default`, in the last \boxed{...} or \fbox{...}, whose content is read by `named`: a response
        with no box, or with something else in the last one, is wrong, for the prompt asks for a letter
        in a box, and an option's text is no letter; `official`, as the official code has it, the last
        letter that stands free anywhere (`last_free`), box or not.
    """

    mode: str = "default"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("verifier.mode", self.mode, MODES)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("options",)

    @property
    def name(self) -> str:
        return "choice" if self.mode == "default" else f"choice_{self.mode}"

    @property
    def workers(self) -> int:
        return 1

    def score(self, problem: Problem, text: str) -> Score:
        meta_field(problem, "options", self.name)
        said = self.read(text)
        if said is None:
            none = "no letter stands free" if self.mode == "official" else "no boxed answer"
            return Score(correct=False, reason=none, by="letter")
        return self.grade(problem, said)

    def read(self, text: str) -> str | None:
        """What is boxed, a letter or not; or the letter that stands free."""
        return last_free(text) if self.mode == "official" else answer_box(text)

    def grade(self, problem: Problem, answer: str) -> Score:
        letter = self._letter(problem, answer)
        if letter is None:
            return Score(correct=False, answer=answer, reason="no letter boxed", by="letter")
        correct = letter == problem.gold
        reason = "the right letter" if correct else "another letter"
        return Score(correct=correct, answer=letter, reason=reason, by="letter")

    def answer(self, problem: Problem, text: str) -> str | None:
        """The letter, if it names one."""
        said = self.read(text)
        return None if said is None else self._letter(problem, said)

    def _letter(self, problem: Problem, said: str) -> str | None:
        return said if self.mode == "official" else named(said, problem.meta.get("options", ()))

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held between calls."""
