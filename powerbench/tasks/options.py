"""What tasks of multiple choice share: GPQA's prompt, and the options as they are shown."""

from collections.abc import Sequence
from string import ascii_uppercase

from powerbench.rng import Stream

LETTERS = "ABCD"
OPENING = (
    "Answer the following multiple choice question. The last line of your response should be of "
    "the following format: '\\boxed{$LETTER}' (without quotes) where LETTER is one of ABCD "
    "(ex. '\\boxed{A}'). Think step by step before answering."
)


def shown(problem: str, answers: int = len(LETTERS), seed: int = 0) -> list[int]:
    """The order in which the answers of the problem with this identity are shown: a permutation.

    seed: another one, another order of every problem.
    """
    stream = Stream(seed, task="gpqa_diamond", problem=problem, replicate=0)
    uniforms = stream.uniforms(("order",), answers)
    return sorted(range(answers), key=lambda answer: uniforms[answer])


def listed(question: str, options: Sequence[str]) -> str:
    """A question, and its options, a letter each."""
    lines = (
        f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)
    )
    return "\n".join([question, "", *lines])
