"""Tasks: one benchmark per file, each a frozen dataclass whose fields are its yaml."""
