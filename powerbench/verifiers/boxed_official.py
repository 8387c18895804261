r"""The answer in a response, read as the official code does (aakaran/reasoning-with-sampling, 720a8e9).

What stands behind the last `\boxed{`, up to the brace that closes it. There is no answer where that box is not
closed, though another is; behind the last `\boxed` stands no brace at once, as in `\boxed {5}`; or the only box
is an `\fbox`. Every brace counts, an escaped one too. The answer then goes through a CSV file, which pandas
reads back: some words are no value there.
"""

OPENING = r"\boxed{"
NO_NUMBERS = frozenset({"-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "NaN", "nan"})
NO_VALUES = NO_NUMBERS | frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "None", "n/a", "null"}
)
"""Cells that `pandas.read_csv` takes for no value."""


def official_box(text: str) -> str | None:
    r"""The content of the last box by the official rule; None without one, or where it is no value."""
    last = text.rfind(OPENING[:-1])
    if not text.startswith(OPENING, max(0, last)):
        return None
    start, depth = last + len(OPENING), 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            content = text[start:end]
            return None if content in NO_VALUES else content
    return None
