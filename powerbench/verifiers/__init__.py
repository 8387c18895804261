"""Verifiers: they judge finished responses; a response they cannot decide on is neither right nor wrong."""
