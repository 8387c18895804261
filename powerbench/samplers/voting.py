"""What samplers that vote share: what responses answer, and which answer wins."""

from collections.abc import Sequence

from powerbench.errors import UserError
from powerbench.samplers.common import Response
from powerbench.types import Context, Outcome


def answers(context: Context, responses: Sequence[Response | Outcome]) -> list[str | None]:
    """What each response answers. Raises UserError if the task's responses have no answers."""
    if context.answer is None:
        raise UserError("a vote needs answers, and this task's responses have none")
    return [context.answer(x.said if isinstance(x, Response) else x.tokens) for x in responses]


def tally(given: Sequence[str | None], weights: Sequence[float]) -> dict[str, float]:
    """Total weight of each answer, in the order in which they were first given; a response without an answer or
    of weight zero has no vote."""
    votes: dict[str, float] = {}
    for answer, weight in zip(given, weights, strict=True):
        if answer is not None and weight > 0:
            votes[answer] = votes.get(answer, 0.0) + weight
    return votes


def winner(votes: dict[str, float]) -> str | None:
    """The answer with the most votes, None if there is no vote. Ties go to the answer given first.

    Responses are independent and drawn from one law, so that the first of them is a fair choice.
    """
    return max(votes, key=votes.__getitem__, default=None)


def up_to_answer(x: Response, start: int, context: Context) -> Response | None:
    """x up to the first of its tokens from `start` on with which it gives an answer; None if it gives none."""
    if answers(context, [x]) == [None]:
        return None
    for stop in range(start + 1, len(x)):
        if answers(context, [cut := x.upto(stop)]) != [None]:
            return cut
    return x


def agreement(given: Sequence[str | None]) -> list[float]:
    """Of each of at least two responses, the share of the others that give its answer; 0 if it gives none."""
    return [(given.count(a) - 1) / (len(given) - 1) if a is not None else 0.0 for a in given]
