"""The error a user can mend: one line that names the value and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Raised where a bad value enters; the command line prints it and exits with code 2."""


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_integer(name: str, value: object, least: int) -> None:
    """Raise UserError unless the value is an integer, and not below `least`."""
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(ok, f"{name} must be an integer >= {least}, got {value}")


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name outside a known set: lists the set, and the closest match if there is one."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return UserError(f"unknown {what} {name!r}{hint}; known: {', '.join(names)}")
