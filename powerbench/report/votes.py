"""maj@n: how often the answer that most responses to a problem give is right."""

from collections import defaultdict
from collections.abc import Callable, Mapping

from powerbench.stats.choices import Vote, majority
from powerbench.stats.intervals import Estimate, clustered
from powerbench.types import SampleKey, Score
from powerbench.verifiers.math.canonical import canonical

SPELLING: Mapping[str, Callable[[str], str]] = {
    "math": canonical,
    "math_official": canonical,
    "choice": str,
}
"""Of the verifiers whose scores hold an answer that can be voted on: equal answers as equal strings."""


def votes_of(verifier: str | None, scores: Mapping[SampleKey, Score]) -> dict[str, list[Vote]]:
    """The votes of decided responses, by problem; none where responses have no answers, such as programs."""
    spelling = SPELLING.get(verifier or "")
    if spelling is None:
        return {}
    votes = defaultdict(list)
    for key, score in scores.items():
        if score.correct is not None:
            answer = None if score.answer is None else spelling(score.answer)
            votes[key.problem].append((answer, float(score.correct)))
    return votes


def majority_at_n(verifier: str | None, scores: Mapping[SampleKey, Score]) -> Estimate | None:
    """Accuracy of the majority vote, over the problems with the most decided responses: those of pass@k.

    None where responses have no answers, or no problem has several.
    """
    votes = votes_of(verifier, scores)
    most = max(map(len, votes.values()), default=0)
    if most < 2:
        return None
    full = {problem: each for problem, each in votes.items() if len(each) == most}
    return clustered({problem: [majority(each)] for problem, each in full.items()})
