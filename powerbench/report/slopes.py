"""The slope of accuracy against alpha that a run's own responses imply: would more sharpening help?"""

from collections import defaultdict

from powerbench.report.summary import Results, Summary
from powerbench.stats.slopes import Response, Slope, slope

OTHER_LAWS = ("low_temp", "max_swap", "max_swap_official", "power_official", "ccps", "aps")
"""Samplers that have an alpha and another law than p^alpha, in any limit."""


def power_of(summary: Summary) -> float | None:
    """The alpha whose p^alpha a run's sampler is for; None if it is for another law. Base is for alpha = 1."""
    if summary.sampler == "base":
        return None if summary.settings.get("top_k") else 1.0
    alpha = summary.settings.get("alpha")
    if summary.sampler in OTHER_LAWS or not isinstance(alpha, (int, float)):
        return None
    return float(alpha)


def by_problem(results: Results) -> dict[str, Slope]:
    """Of each problem with two decided, graded responses or more; nothing for a run of another law."""
    if power_of(results.summary) is None:
        return {}
    responses = defaultdict(list)
    for key, score in results.scores.items():
        logp = results.samples[key].logp
        if score.correct is not None and logp is not None:
            responses[key.problem].append(Response(score.correct, logp))
    return {problem: slope(each) for problem, each in responses.items() if len(each) > 1}
