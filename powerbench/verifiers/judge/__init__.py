"""Which of two responses a judging model prefers."""

from powerbench.verifiers.judge.verifier import EndpointJudge, StandInJudge

__all__ = ["EndpointJudge", "StandInJudge"]
