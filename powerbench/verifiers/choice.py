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
        if self.mode == "official":
            free = last_free(text)
            none = Score(correct=False, reason="no letter stands free", by="letter")
            return none if free is None else self._compared(problem, free)
        boxed = answer_box(text)
        if boxed is None:
            return Score(correct=False, reason="no boxed answer", by="letter")
        letter = named(boxed, problem.meta["options"])
        if letter is None:
            return Score(correct=False, answer=boxed, reason="no letter boxed", by="letter")
        return self._compared(problem, letter)

    def _compared(self, problem: Problem, letter: str) -> Score:
        correct = letter == problem.gold
        reason = "the right letter" if correct else "another letter"
        return Score(correct=correct, answer=letter, reason=reason, by="letter")

    def answer(self, problem: Problem, text: str) -> str | None:
        """The letter, if it names one."""
        if self.mode == "official":
            return last_free(text)
        boxed = answer_box(text)
        return None if boxed is None else named(boxed, problem.meta.get("options", ()))

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held between calls."""
