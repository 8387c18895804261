"""The error a user can fix: one line that names the value and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches
from errno import ENOSPC


class UserError(ValueError):
    """Raised where a bad value enters; the command line prints it and exits with code 2."""


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_integer(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise UserError unless the value is an integer, not below `least`, and not above `most`."""
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
    ok = ok and (most is None or value <= most)  # type: ignore[operator]
    bound = f" and <= {most}" if most is not None else ""
    require(ok, f"{name} must be an integer >= {least}{bound}, got {value}")


def require_number(name: str, value: object, above: float, most: float, unit: str = "") -> None:
    """Raise UserError unless the value is a number, above `above` and at most `most`."""
    ok = isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most
    of = f" {unit}" if unit else ""
    require(ok, f"{name} must be a number > {above:g} and <= {most:g}{of}, got {value}")


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name outside a known set: lists the set, and the closest match if there is one."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return UserError(f"unknown {what} {name!r}{hint}; known: {', '.join(names)}")


def first_line(error: BaseException) -> str:
    """The first line of what a library says, or the kind of its error."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """What to tell the user of an error that they can fix, or that the system made."""
    if isinstance(error, OSError):
        remedy = "; free some space, and repeat the command" if error.errno == ENOSPC else ""
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror or error}{remedy}"
    return str(error)
