"""Where files are kept that can be had again, at a price: converted models, and answers of judges."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$POWERBENCH_CACHE, or else ~/.cache/powerbench. It may not exist yet."""
    default = Path.home() / ".cache" / "powerbench"
    return Path(os.environ.get("POWERBENCH_CACHE", default)).expanduser()
