"""The data of the page's browser of responses: an index, read at once, and details, a chunk at a time."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from powerbench.report.labels import labels
from powerbench.report.selection import Selection
from powerbench.report.summary import Results
from powerbench.report.tables.disagreement import disagree
from powerbench.types import Sample, SampleKey, Score

UNSCORED = "not scored"
PER_CHUNK = 100
"""Responses in a chunk: at most about half a megabyte, parsed in a few milliseconds."""
EXCERPT = 160
"""Characters of a response that the list has."""


@dataclass(frozen=True)
class PageData:
    """Plain data (JSON)."""

    index: dict[str, Any]
    """The columns by which the list is sorted and filtered; responses by problem, run, replicate."""
    chunks: list[dict[str, Any]]
    """In the same order, everything else of `PER_CHUNK` responses each, and their problems' texts.

    A prompt that several runs share is held once, or twice where its responses begin in one chunk and
    end in the next."""


class PageRow(NamedTuple):
    """One response, in two parts."""

    row: dict[str, Any]
    """For the index."""
    details: dict[str, Any]
    """For its chunk."""


def page_data(results: Sequence[Results], selection: Selection) -> PageData:
    """The responses of some runs that a page shows."""
    summaries = [r.summary for r in results]
    runs = [
        {"task": s.task, "model": s.model, "sampler": name}
        for s, name in zip(summaries, labels(summaries), strict=True)
    ]
    problems: dict[tuple[str, str, str], int] = {}
    responses: list[PageRow] = []
    for run, (result, keys) in enumerate(zip(results, selection.runs, strict=True)):
        found = _rows(result, keys)
        for key in keys:
            problem = result.problems[key.problem]
            shown = problems.setdefault(
                (problem.id, problem.prompt.text, problem.gold), len(problems)
            )
            row, details = found[key]
            place = {"problem": shown, "run": run, "replicate": key.replicate}
            responses.append(PageRow(place | row, details))
    responses.sort(key=lambda r: (r.row["problem"], r.row["run"], r.row["replicate"]))
    index = {
        "runs": runs,
        "problems": [id_ for id_, _, _ in problems],
        "responses": [r.row for r in responses],
        "perChunk": PER_CHUNK,
    }
    texts = [{"prompt": prompt, "gold": gold} for _, prompt, gold in problems]
    parts = [responses[i : i + PER_CHUNK] for i in range(0, len(responses), PER_CHUNK)]
    return PageData(index, [_chunk(part, texts) for part in parts])


def score_name(score: Score | None) -> str:
    """The page's word for a score: correct, wrong; win (preference > 1/2), tie, loss; undecided, not scored."""
    if score is None:
        return UNSCORED
    if score.correct is not None:
        return "correct" if score.correct else "wrong"
    if score.preference is not None:
        return "tie" if score.preference == 0.5 else "win" if score.preference > 0.5 else "loss"
    return "undecided"


def embed(value: Any) -> Markup:
    """JSON that is safe inside a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _chunk(responses: Sequence[PageRow], texts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {
        "problems": {r.row["problem"]: texts[r.row["problem"]] for r in responses},
        "responses": [r.details for r in responses],
    }


def _rows(result: Results, keys: Sequence[SampleKey]) -> dict[SampleKey, PageRow]:
    """Reads the texts of these responses alone."""
    return {
        key: _row(sample, result.scores.get(key), _others(result, key))
        for key, sample in result.texts(keys).items()
    }


def _others(result: Results, key: SampleKey) -> list[dict[str, Any]]:
    """The scores of a response by verifiers other than the run's own."""
    own = result.scores.get(key)
    said = {v: scores[key] for v, scores in result.all_scores.items() if key in scores}
    return [
        {
            "verifier": verifier,
            "score": score_name(score),
            "reason": score.reason,
            "disagrees": own is not None and disagree(own, score),
        }
        for verifier, score in said.items()
        if verifier != result.verifier
    ]


def _row(sample: Sample, score: Score | None, others: Sequence[Mapping[str, Any]]) -> PageRow:
    length = sample.length
    proposals = sum(s.decoded > 0 for s in sample.steps)
    row = {
        "score": score_name(score),
        "disputed": any(other["disagrees"] for other in others),
        "tokens": length,
        "logpPerToken": _per_token(sample.logp, length),
        "confidence": _per_token(None if sample.entropy is None else -sample.entropy, length),
        "acceptance": _number(sum(s.accepted for s in sample.steps) / proposals)
        if proposals
        else None,
        "excerpt": " ".join(sample.text[:EXCERPT].split()),
    }
    cost = sample.cost
    details = {
        "text": sample.text,
        "preference": score.preference if score else None,
        "answer": score.answer if score else None,
        "reason": score.reason if score else "",
        "by": score.by if score else "",
        "others": others,
        "promptTokens": sample.prompt_tokens,
        "logp": _number(sample.logp),
        "reasoning": sample.reported.reasoning if sample.reported else None,
        "refusal": sample.reported.refusal if sample.reported else None,
        "dollars": cost.dollars,
        "finish_reason": sample.finish_reason,
        "decoded": cost.decoded,
        "passes": cost.passes,
        "prefilled": cost.prefilled,
        "seconds": _number(cost.seconds),
        "steps": [
            (
                s.block,
                s.restart,
                s.decoded,
                int(s.accepted),
                _number(s.current),
                _number(s.proposed),
            )
            for s in sample.steps
        ],
        "rounds": [
            (
                r.block,
                r.start,
                [_number(x) for x in r.logp],
                [_number(w) for w in r.weights],
                r.kept,
            )
            for r in sample.rounds
        ],
    }
    return PageRow(row, details)


def _per_token(total: float | None, length: int) -> float | None:
    return None if total is None or not length else _number(total / length)


def _number(x: float | None) -> float | None:
    return round(x, 4) if x is not None and math.isfinite(x) else None
