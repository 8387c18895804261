"""A sample to be stored."""

from powerbench.types import Cost, FinishReason, Sample, Step


def sample(problem: str, replicate: int = 0) -> Sample:
    steps = (Step(0, 1, -2.0, None, 3, False), Step(0, 0, -2.0, -1.5, 4, True))
    cost = Cost(
        decoded=9, prefilled=4, seconds=0.5, finished=100.0, attended=70.0, passes=3, rows=11
    )
    return Sample(
        problem, replicate, "é\n\u2028", (1, 2), -1.5, 3.0, FinishReason.STOP, 4, cost, steps
    )
