"""GPQA Diamond: 198 questions of graduate science with four options (Rein et al. 2023, arXiv 2311.12022)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from powerbench.errors import require_integer
from powerbench.tasks.common import (
    provenance,
    require_kind,
    require_settings,
    through_chat,
    unique,
)
from powerbench.tasks.options import LETTERS, OPENING, listed, shown
from powerbench.tasks.reading import Row, read_file, read_hub
from powerbench.types import Problem, Prompt

ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
SUBJECTS = {"domain": "High-level domain", "subdomain": "Subdomain"}


@dataclass(frozen=True)
class GPQADiamond:
    """Problems in the format of GPQA: Question, Correct Answer, Incorrect Answer 1 to 3, Record ID.

    The order in which a problem's options are shown follows from its Record ID alone (without one,
    from its question): every arm, model, replicate and seed is asked the same, whatever rows stand
    beside it. The official code draws the order from the stream that its chains draw positions from,
    so that there it changes between seeds, models and settings. The prompt is the official one, with
    question and options as stored, blanks included: both what the last line must be and the request
    to think step by step stand before the question.

    path: a local file, such as the hub's own CSV, instead of the hub, where the set is gated: the token is
        taken from the environment, HF_TOKEN.
    file: the file on the hub; read as it is, so that a copy by `path` is the same data set (`datasets`
        would take an answer such as None or NA for an empty cell).
    order_seed: another number, another order of every problem's options; `${seed}` gives each seed of
        a run its own, as the official code's seeds have.
    chat: `model` (raw text for every model), `always` or `never`.
    stop_tokens: strings of one token each that end a response, beside the model's own.

    Its authors ask that no question is published, lest models learn it: keep run folders private.
    """

    name: str = "gpqa_diamond"
    path: str | None = None
    hub: str = "Idavidrein/gpqa"
    revision: str = "633f5ee89ab8ad4522a9f850766b73f62147ffdd"
    file: str = "gpqa_diamond.csv"
    order_seed: int = 0
    chat: str = "model"
    proposal_temperature: float | None = None
    stop_tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_settings(self.chat, self.proposal_temperature)
        require_integer("task.order_seed", self.order_seed, 0)

    def problems(self, kind: str) -> list[Problem]:
        require_kind(kind)
        return list(unique(self._problem(str(i), row) for i, row in enumerate(self.rows, 1)))

    def source(self) -> Mapping[str, Any]:
        if self.path is None:
            return provenance(self.rows, hub=self.hub, revision=self.revision, file=self.file)
        return provenance(self.rows, path=self.path)

    @cached_property
    def rows(self) -> list[Row]:
        """The data set as it is stored."""
        if self.path is None:
            page = f"https://huggingface.co/datasets/{self.hub}"
            remedy = f"ask for access at {page} and set HF_TOKEN, or set task.path=<local csv>"
            return read_hub(self.hub, self.revision, self._load, remedy)
        return read_file(self.path)

    def _load(self) -> Iterable[Mapping[str, Any]]:
        from huggingface_hub import hf_hub_download  # slow to import

        file = hf_hub_download(self.hub, self.file, revision=self.revision, repo_type="dataset")
        return [row.record for row in read_file(file)]

    def _problem(self, number: str, row: Row) -> Problem:
        question = row.filled("Question")
        answers = [row.filled(column) for column in ANSWERS]
        record_id = row.filled("Record ID") if "Record ID" in row.record else None
        order = shown(record_id or question, seed=self.order_seed)
        options = [answers[i] for i in order]
        subjects = {
            field: row[column] for field, column in SUBJECTS.items() if column in row.record
        }
        return Problem(
            id=record_id or number,
            prompt=Prompt(official(question, options), through_chat(self.chat, style=False)),
            gold=LETTERS[order.index(0)],
            meta={"options": options, **subjects},
        )


def official(question: str, options: Sequence[str]) -> str:
    """The paper's prompt."""
    return f"{OPENING}\n\n{listed(question, options)}"
