"""Models behind an OpenAI-compatible API: asked within a pace and a budget, and never paid twice for an answer.

Whoever asks such a model asks through `Endpoint`: the judge of preferences, and runs with `model=endpoint`.
"""
