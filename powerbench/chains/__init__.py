"""The two ways to drive a sampler: by an engine, and by enumeration of its law."""
