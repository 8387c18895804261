"""Runs beside the yamls of conf/sampler: what a run changes of its sampler, and the order of samplers.

A run whose settings are its yaml's, such as alpha=4 for all samplers, is a sampler's main run. Others are
its variants: points of a curve against alpha, or departures left out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from powerbench.config import conf_dir


def changes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler's settings that differ from its yaml's, whose references are to this configuration.

    config: a run's. A sampler without a yaml here has changed nothing.
    """
    own = config["sampler"]
    default = _yaml(str(own["name"]))
    if default is None:
        return {}
    whole = OmegaConf.create({**config, "sampler": default})
    found = {}
    for key, value in own.items():
        if key == "_target_":
            continue
        try:
            if key in whole.sampler and whole.sampler[key] != value:
                found[key] = value
        except OmegaConfBaseException:  # refers to what this configuration does not have
            continue
    return found


def format_settings(settings: Mapping[str, Any]) -> str:
    """Settings as on the command line: `alpha=2, top_k=null`."""
    return ", ".join(f"{key}={_word(value)}" for key, value in settings.items())


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def sampler_order() -> Sequence[str]:
    """The samplers in the order in which they are shown: that of the `# order:` comments of their yamls.

    Those without one follow by name.
    """
    return _ordered(conf_dir() / "sampler")


@cache
def _ordered(folder: Path) -> Sequence[str]:
    places: dict[str, tuple[float, str]] = {}
    for file in folder.glob("*.yaml"):
        found = re.search(r"^# order: (\d+)$", file.read_text(encoding="utf-8"), re.M)
        places[file.stem] = (int(found[1]) if found else math.inf, file.stem)
    return sorted(places, key=places.__getitem__)


@cache
def _yaml(sampler: str) -> DictConfig | None:
    file = conf_dir() / "sampler" / f"{sampler}.yaml"
    if not file.is_file():
        return None
    loaded = OmegaConf.load(file)
    return loaded if isinstance(loaded, DictConfig) else None
