"""A table of plain cells as CSV, and as LaTeX for booktabs."""

import csv
import io
from collections.abc import Sequence

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
}


def as_csv(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated values, as RFC 4180 has them but for plain newlines."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([headings, *rows])
    return out.getvalue()


def as_latex(headings: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A tabular. names: how many columns, from the left, are text."""
    columns = "l" * names + "r" * (len(headings) - names)
    body = [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    head = " & ".join(map(_escaped, headings)) + r" \\"
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
    ]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escaped(cell: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in cell)
