"""Samplers: one algorithm per file, each a frozen dataclass whose fields are its yaml."""
