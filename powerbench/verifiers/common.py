"""What verifiers share: the protocol, and what they ask of a problem."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from powerbench.errors import UserError, require
from powerbench.machine.cpus import usable_cpus
from powerbench.types import Problem, Score

TIMED_OUT = "timed out"
"""The reason of an undecided score: a response that missed the verifier's time limit."""
MAX_SECONDS, MAX_MB = 3600.0, 2**20
"""The largest settings of limits of time, in seconds, and of memory and files, in MiB."""


class CannotScore(UserError):  # noqa: N818
    """No further response can be scored now: the judge cannot be reached, or its budget is spent.

    Scoring stops; the scores made so far are kept, and the same command continues from them.
    """


class Verifier(Protocol):
    """A judge of responses. Its fields are settings.

    One that can tell the answer of a response without judging it is `Answering` as well.
    """

    @property
    def name(self) -> str:
        """Names scores/<name>.jsonl: another name for settings under which scores differ."""
        ...

    @property
    def workers(self) -> int:
        """The largest number of calls of `score`, each in a thread, that may run at once."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of a problem's meta that it reads: by them the tasks that it judges are known."""
        ...

    def score(self, problem: Problem, text: str) -> Score:
        """The score of a response; with neither `correct` nor `preference` if it cannot decide.

        Ends, and does not raise, whatever the response is. May be called from several threads.
        Raises UserError if the problem is not of the kind that this verifier judges, CannotScore if
        no response can be judged now.
        """
        ...

    def progress(self) -> str:
        """What a display adds on the verifier's own work, such as the money spent; empty for nothing."""
        ...

    def close(self) -> None:
        """Release what `score` holds: processes, connections. Scoring again is allowed."""
        ...


@runtime_checkable
class Answering(Protocol):
    """Optional for a verifier whose score of a response is that of the answer in it, which can be read out: so
    responses can vote, and those that were not returned be graded without their texts."""

    def read(self, text: str) -> str | None:
        """The answer in a response, as it is written; None if there is none, and then it is wrong.

        Computed in this process, in a few hundredths of a second at most, whatever the response is; never
        raises.
        """
        ...

    def grade(self, problem: Problem, answer: str) -> Score:
        """The score of a response in which `read` finds this answer; otherwise as `score`."""
        ...

    def answer(self, problem: Problem, text: str) -> str | None:
        """The answer that a response votes for; None if it gives none.

        Answers that `score` takes for equal are equal strings as far as is cheap. Otherwise as `read`.
        """
        ...


def require_judges(verifier: Verifier, problems: Iterable[Problem]) -> None:
    """Raise UserError for a problem that is not of the kind that this verifier judges."""
    for problem in problems:
        for field in verifier.needs:
            meta_field(problem, field, verifier.name)


def meta_field(problem: Problem, field: str, verifier: str) -> str:
    """A field of the problem's meta. Raises UserError if the task does not give it."""
    require(
        field in problem.meta,
        f"verifier {verifier!r} needs {field!r}, which problem {problem.id} lacks; "
        f"choose the verifier of its task",
    )
    return problem.meta[field]


def cores() -> int:
    """The CPU cores that this process may use."""
    return usable_cpus().count
