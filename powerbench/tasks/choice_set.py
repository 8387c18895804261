"""Any set of multiple-choice questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, ClassVar, NamedTuple

from powerbench.errors import UserError, require, unknown
from powerbench.tasks.column_set import QUESTION, ColumnSet
from powerbench.tasks.options import LETTERS, OPENING, listed, shown
from powerbench.tasks.reading import Row
from powerbench.types import Problem

FORMS = ("letter", "index", "number", "text")
MOST = len(ascii_uppercase)


class Option(NamedTuple):
    """One option of a question, as it is stored."""

    text: str
    label: str
    """What the data set calls it: a letter, or the name of its column."""
    place: int
    """Among those of the question, from 0; options that are missing count."""


@dataclass(frozen=True, kw_only=True)
class ChoiceSet(ColumnSet):
    r"""Questions with options, of which one is right: verifier=choice reads the letter in the last \boxed{}.

    choices: the column that holds the list of the options (or a list under `text`, with the letters under
        `label`), or a list of columns with one option each; an option that is missing there is left out.
    answer: the column of the right one; answer_form, how it is given: `letter`; `index`, from 0; `number`, from
        1; `text`, the option's own text, or with a list of columns the name of its column.
    shuffle: show the options in an order that follows from the problem's id alone: for sets in which the right
        one always stands in the same place.
    prompt_style: `official`, as of GPQA; `plain`, the question and its options alone; `few_shot`, for which an
        example has the field `choices` too. A template of your own may hold {letters}, such as ABCD.
    """

    STYLES: ClassVar[Mapping[str, str]] = {
        "official": OPENING.replace(LETTERS, "{letters}") + f"\n\n{QUESTION}",
        "plain": QUESTION,
    }

    choices: str | Sequence[str] = "choices"
    answer: str = "answer"
    answer_form: str = "letter"
    shuffle: bool = False
    subject: str | None = None
    prompt_style: str = "official"
    examples: str | None = "bundled:examples/choice.jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer_form not in FORMS:
            raise unknown("task.answer_form", self.answer_form, FORMS)

    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        several = [self.choices] if isinstance(self.choices, str) else list(self.choices)
        named = {f"choices[{i}]" if i else "choices": name for i, name in enumerate(several)}
        return {**named, "answer": self.answer, "subject": self.subject}

    def problem(self, row: Row, id: str, kind: str) -> Problem:
        question = self.text_of(row, self.question)
        options = self._options(row)
        right = self._right(row, options)
        order = shown(id, len(options)) if self.shuffle else list(range(len(options)))
        texts = [options[i].text for i in order]
        letters = ascii_uppercase[: len(options)]
        meta: dict[str, Any] = {"options": texts, "question": question}
        if self.subject is not None:
            meta["subject"] = row.cell(self.subject)
        return Problem(
            id=id,
            prompt=self.asked(listed(question, texts), kind, letters=letters),
            gold=letters[order.index(right)],
            meta=meta,
        )

    def example(self, shown: str, solution: str | None) -> str:
        return f"Question: {shown}\n\nAnswer:" + ("" if solution is None else f" {solution}")

    def example_question(self, row: Row) -> str:
        return listed(row.filled("question"), [option.text for option in _in_list(row, "choices")])

    def _options(self, row: Row) -> list[Option]:
        if isinstance(self.choices, str):
            options = _in_list(row, self.choices)
        else:
            filled = ((i, x) for i, x in enumerate(self.choices) if row[x] not in (None, ""))
            options = [Option(row.cell(name), name, i) for i, name in filled]
        require(
            2 <= len(options) <= MOST,
            f"{row.where}: a question must have 2 to {MOST} options, got {len(options)}; see task.choices",
        )
        return options

    def _right(self, row: Row, options: Sequence[Option]) -> int:
        """Which option is right, from 0."""
        given = row.cell(self.answer).strip()
        letter = given.strip("().").upper()
        named: Mapping[str, Iterable[Iterable[str]]] = {
            "letter": (
                [o.label.upper() for o in options],
                [ascii_uppercase[o.place] for o in options],
            ),
            "index": ([str(o.place) for o in options],),
            "number": ([str(o.place + 1) for o in options],),
            "text": ([o.text.strip() for o in options], [o.label for o in options]),
        }
        wanted = letter if self.answer_form == "letter" else given
        for names in named[self.answer_form]:
            if wanted in (known := list(names)):
                return known.index(wanted)
        raise UserError(
            f"{row.where}: {self.answer!r} must name one of the {len(options)} options by its "
            f"{self.answer_form}, got {given!r}; see task.answer_form: {', '.join(FORMS)}"
        )


def _in_list(row: Row, column: str) -> list[Option]:
    """The options in a column that holds a list, or a list under `text`."""
    value = row[column]
    texts = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise UserError(
            f"{row.where}: {column!r} must be a list of options, got {value!r}; see task.choices"
        )
    labels = value.get("label") if isinstance(value, Mapping) else None
    labels = ascii_uppercase[: len(texts)] if labels is None else labels
    cells = Row({f"{column}[{i}]": text for i, text in enumerate(texts)}, row.where)
    options = zip(cells.record, labels, strict=False)
    return [Option(cells.cell(name), str(label), i) for i, (name, label) in enumerate(options)]
