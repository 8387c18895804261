"""Whether two answers of mathematics are equal."""

from powerbench.verifiers.math.verifier import MathVerifier

__all__ = ["MathVerifier"]
