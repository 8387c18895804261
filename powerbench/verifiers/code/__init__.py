"""Whether a program passes its tests."""

from powerbench.verifiers.code.verifier import CodeVerifier

__all__ = ["CodeVerifier"]
