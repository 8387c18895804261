"""Configuration: finds conf/, composes it with Hydra, and turns every mistake into one clear line."""

import math
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from powerbench.errors import UserError, unknown

GROUPS = (
    "model",
    "engine",
    "task",
    "sampler",
    "without",
    "ladder",
    "verifier",
    "edition",
    "experiment",
    "tracker",
)
LAUNCHER = "hydra/launcher"
# Our presets bear the names of the plugins' own, which serve as their schema.
warnings.filterwarnings(
    "ignore", r"\s*'hydra/launcher/(joblib|ray)' is validated against", UserWarning
)
NAMED_BY_CHOICE = ("sampler", "engine", "verifier")
"""Groups whose objects have no name of their own: the yaml's name is theirs."""

KEY = re.compile(r"(?:\+{1,2}|~)?[A-Za-z_][\w./@:-]*", re.ASCII)
"""The name of a setting, with what Hydra puts before it to add or remove one."""

FILLED_LATER = ("verifier.ask",)
"""Settings without a value in their yaml, which the program supplies."""


@dataclass(frozen=True)
class RunConfig:
    """The composed configuration of one run."""

    values: DictConfig
    choices: Mapping[str, str]
    """The name chosen in each group."""
    overrides: Sequence[str] = ()
    """The settings of the command, without Hydra's own; in a sweep, those of this run."""

    @property
    def command(self) -> str:
        """The command that makes this run alone."""
        return shlex.join(["powerbench", "run", *self.overrides])

    def build(self, group: str, **given: Any) -> Any:
        """The object that a group's yaml describes. Raises UserError for an impossible setting."""
        try:
            return instantiate(self.values[group], **given)
        except InstantiationException as error:
            raise self._explained(group, error) from error
        except OmegaConfBaseException as error:
            raise UserError(f"{group}: {_first_line(error)}") from error

    def _explained(self, group: str, error: BaseException) -> UserError:
        cause = error
        while cause.__cause__ is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            return cause
        return UserError(
            f"a setting of {group}={self.choices.get(group)} is wrong: {_first_line(cause)}"
        )

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """The inverse of `settings`, for what a run folder holds."""
        values = OmegaConf.create(dict(settings))
        choices = {group: values[group].pop("name") for group in NAMED_BY_CHOICE}
        return cls(values, choices)

    def settings(self) -> dict[str, Any]:
        """The configuration as plain data, with the names of the chosen sampler, engine and verifier."""
        plain: Any = OmegaConf.to_container(self.values, resolve=True)
        plain.pop("hydra", None)
        for group in NAMED_BY_CHOICE:
            plain[group] = {"name": self.choices[group], **plain[group]}
        return plain


def conf_dir() -> Path:
    """The folder conf/: inside the package when installed from a wheel, beside it in a clone."""
    package = Path(__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"conf/ is found neither in {package} nor beside it; reinstall powerbench")


def options(group: str) -> dict[str, str]:
    """The names in a group and their one-line descriptions (each yaml's first comment)."""
    found, folder = {}, conf_dir() / group
    for file in sorted(folder.rglob("*.yaml")):
        comments = [
            x
            for x in file.read_text(encoding="utf-8").splitlines()
            if x.startswith("# ") and not x.startswith("# @")
        ]
        name = file.relative_to(folder).with_suffix("").as_posix()
        found[name] = comments[0][2:] if comments else ""
    return found


def compose(overrides: Sequence[str]) -> RunConfig:
    """Compose the configuration of one run. Raises UserError, naming the wrong value and the known ones."""
    overrides = readable(overrides)
    for override in _parsed(overrides):
        _check_choice(override)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            values = hydra_compose("config", list(overrides), return_hydra_config=True)
            hydra = values.hydra
            config = RunConfig(values, dict(hydra.runtime.choices), tuple(hydra.overrides.task))
            _require_finite(config.settings())  # which resolves every interpolation
            missing = [k for k in OmegaConf.missing_keys(values) if k not in FILLED_LATER]
        except HydraException as error:
            raise _unknown_key(overrides, error) from error
        except OmegaConfBaseException as error:
            raise UserError(_first_line(error)) from error
    for key in missing:
        if not key.startswith("hydra."):
            raise UserError(f"{key} has no value: add {key}=... to the command")
    return config


class Expansion(NamedTuple):
    """The runs that one command stands for."""

    runs: list[list[str]]
    """The settings of each run."""
    swept: bool
    """Whether it is a sweep, which a launcher runs; a sweep may be of one run."""


def expand(overrides: Sequence[str], multirun: bool) -> Expansion:
    """The runs of a command.

    Raises UserError for a sweep (`sampler=base,power`) without `-m`.
    """
    overrides = readable(overrides)
    swept = [o for o in _parsed(overrides) if o.is_sweep_override()]
    fixed = [o.input_line for o in _parsed(overrides) if not o.is_sweep_override()]
    first = [f"{o.key_or_group}={next(o.sweep_string_iterator())}" for o in swept]
    hydra = compose([*fixed, *first]).values.hydra
    if not multirun and str(hydra.mode) != "RunMode.MULTIRUN":
        if swept:
            key, _, value = swept[0].input_line.partition("=")
            raise UserError(
                f"{swept[0].input_line} is a sweep: add -m (powerbench run -m ...), or, if the comma is "
                f"part of one value, quote it: {_in_shell(key, value)}"
            )
        return Expansion([fixed], swept=False)
    own = {o.key_or_group for o in _parsed(overrides)}
    params = [f"{k}={v}" for k, v in (hydra.sweeper.params or {}).items() if k not in own]
    batches = BasicSweeper.split_arguments(_parsed([*params, *overrides]), None)
    return Expansion([list(run) for batch in batches for run in batch], swept=True)


def quoted(text: str | Path) -> str:
    """A text as a value of Hydra's grammar, whatever characters it has."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + (m[2] and "\\'"), str(text))
    return f"'{escaped}'"


def readable(overrides: Sequence[str]) -> list[str]:
    """Settings as Hydra's grammar reads them: a value that it refuses is quoted, if it can only be text.

    So are paths with `=`, parentheses, `~`, `$`, or letters that are not ASCII. Raises UserError that says
    how to quote where a value may be meant as a list, a dictionary, an interpolation or a sweep.
    """
    return [_readable(override) for override in overrides]


def _readable(override: str) -> str:
    key, equals, value = (part.strip() for part in override.partition("="))
    if any("\ud800" <= letter <= "\udfff" for letter in override):
        raise UserError(f"the setting {override!a} is not text in UTF-8")
    if not KEY.fullmatch(key) or not (equals or key.startswith("~")):
        raise UserError(
            f"cannot read the setting {override!r}: write name=value, as in limit=5 or sampler.alpha=2"
        )
    reason = ""
    for text in (override, f"{key}={value}"):
        try:
            OverridesParser.create().parse_override(text)
            return text
        except HydraException as error:
            reason = reason or _first_line(error)
    if value.startswith(tuple("[{'\"")) or "," in value or "${" in value:
        raise UserError(
            f"cannot read the setting {override!r} ({reason}); if its value is plain text, quote it: "
            f"{_in_shell(key, value)}"
        )
    return f"{key}={quoted(value)}"


def _in_shell(key: str, value: str) -> str:
    """A setting whose value is text, as one types it: quotes for Hydra inside those for the shell."""
    text = f"{key}={quoted(value)}"
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def _require_finite(settings: Any, name: str = "") -> None:
    """Raise UserError for a number that is infinite or none: no setting has a use for one."""
    if isinstance(settings, float) and not math.isfinite(settings):
        raise UserError(f"{name} must be a finite number, got {settings}")
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(settings, dict):
        items = settings.items()
    elif isinstance(settings, list):
        items = enumerate(settings)
    for key, value in items:
        _require_finite(value, f"{name}.{key}" if name else str(key))


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"cannot read the setting: {_first_line(error)}") from error


def _check_choice(override: Override) -> None:
    group = override.key_or_group
    if group not in GROUPS or override.is_delete():
        return
    if group == "experiment" and override.value() is None:
        return
    values = (
        override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    )
    for name in values:
        if str(name) not in options(group):
            raise unknown(group, str(name), options(group))


def _unknown_key(overrides: Sequence[str], error: HydraException) -> UserError:
    """The error for a setting that does not exist: names it and its siblings."""
    for override in _parsed(overrides):
        key = override.key_or_group
        if key == LAUNCHER and f"'{LAUNCHER}/{override.value()}'" in str(error):
            return unknown(LAUNCHER, str(override.value()), ["basic", *options(LAUNCHER)])
        if f"'{key}'" not in str(error) and key not in str(error):
            continue
        choices = [
            o for o in overrides if o.partition("=")[0] in GROUPS and o != override.input_line
        ]
        with_defaults = hydra_compose("config", choices)
        node, _, name = key.rpartition(".")
        section = OmegaConf.select(with_defaults, node) if node else with_defaults
        if isinstance(section, DictConfig) and name not in section:
            names = [str(k) for k in section if k != "_target_"]
            return unknown("setting", key, [f"{node}.{k}" if node else k for k in names])
    return UserError(_first_line(error))


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error)).strip()
