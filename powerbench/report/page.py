"""The page: one HTML file with table, figures, responses, and what produced each run."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from powerbench.report import published
from powerbench.report.disagreement import compare, disagree
from powerbench.report.figures.style import INK, Drawing
from powerbench.report.selection import Selection
from powerbench.report.summary import Results, labels
from powerbench.report.table import Table, text
from powerbench.store import SampleKey
from powerbench.types import Sample, Score

HERE = Path(__file__).parent
UNSCORED = "not scored"


def render(
    results: Sequence[Results],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    selection: Selection,
) -> str:
    """The page's text. It loads nothing: styles, script, figures and data are inside.

    Responses may hold anything, `</script>` among it: the template escapes what it prints, and the
    script puts text into the page as text only.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    summaries = [r.summary for r in results]
    names = labels(summaries)
    comparisons = [
        (s, name, c, text(c.value))
        for s, name, r in zip(summaries, names, results, strict=True)
        for c in compare(r)
    ]
    return environment.get_template("page.html.j2").render(
        tables={table.name: table for table in tables},
        published=published.table(),
        comparisons=comparisons,
        disputed=any(c.disagreements for _, _, c, _ in comparisons),
        tasks=len({s.task for s in summaries}),
        selection=selection,
        figures=[(drawing, _inline(drawing.svg)) for drawing in drawings],
        runs=[(name, r.summary, _provenance(r)) for name, r in zip(names, results, strict=True)],
        style=Markup((HERE / "page.css").read_text()),
        script=Markup((HERE / "page.js").read_text()),
        data=embed(page_data(results, selection)),
    )


def page_data(results: Sequence[Results], selection: Selection) -> dict[str, Any]:
    """What the browser of responses reads; a prompt that several runs share is held once."""
    names = labels([r.summary for r in results])
    runs: list[dict[str, str]] = []
    responses: list[dict[str, Any]] = []
    problems: dict[tuple[str, str, str], int] = {}
    for name, result, keys in zip(names, results, selection.runs, strict=True):
        summary, found = result.summary, _responses(result, keys)
        for key in keys:
            problem = result.problems[key.problem]
            shown = problems.setdefault(
                (problem.id, problem.prompt.text, problem.gold), len(problems)
            )
            responses.append({"run": len(runs), "problem": shown, **found[key]})
        runs.append({"task": summary.task, "model": summary.model, "sampler": name})
    shown_problems = [{"id": id_, "prompt": prompt, "gold": gold} for id_, prompt, gold in problems]
    return {"runs": runs, "problems": shown_problems, "responses": responses}


def verdict(score: Score | None) -> str:
    """What the page calls a score: right or wrong; win (preference > 1/2), tie or loss; or neither."""
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


def _responses(result: Results, keys: Iterable[SampleKey]) -> dict[SampleKey, dict[str, Any]]:
    """Reads the run again, and keeps of it what the page shows."""
    wanted, scores = set(keys), result.scores
    return {
        key: _response(sample, scores.get(key), _others(result, key))
        for sample in result.run.stream()
        if (key := SampleKey(sample.problem, sample.replicate)) in wanted
    }


def _others(result: Results, key: SampleKey) -> list[dict[str, Any]]:
    """What verifiers other than the run's own say of a response."""
    own = result.scores.get(key)
    said = {v: scores[key] for v, scores in result.verdicts.items() if key in scores}
    return [
        {
            "verifier": verifier,
            "verdict": verdict(score),
            "reason": score.reason,
            "disagrees": own is not None and disagree(own, score),
        }
        for verifier, score in said.items()
        if verifier != result.verifier
    ]


def _response(
    sample: Sample, score: Score | None, others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    length = len(sample.tokens)
    return {
        "replicate": sample.replicate,
        "text": sample.text,
        "verdict": verdict(score),
        "preference": score.preference if score else None,
        "extracted": score.extracted if score else None,
        "reason": score.reason if score else "",
        "by": score.by if score else "",
        "others": others,
        "tokens": length,
        "promptTokens": sample.prompt_tokens,
        "logp": _number(sample.logp),
        "logpPerToken": _number(sample.logp / length) if length else None,
        "confidence": _number(-sample.entropy / length) if length else None,
        "ended": sample.ended,
        "decoded": sample.cost.decoded,
        "prefilled": sample.cost.prefilled,
        "seconds": _number(sample.cost.seconds),
        "steps": [
            (s.block, s.restart, s.decoded, int(s.accepted), _number(s.current))
            for s in sample.steps
        ],
    }


def _number(x: float) -> float | None:
    return round(x, 4) if math.isfinite(x) else None


def _inline(svg: Path) -> Markup:
    """The figure as an element whose ink is the page's text colour."""
    text = svg.read_text()
    return Markup(text[text.index("<svg") :].replace(INK, "currentColor"))


def _provenance(result: Results) -> dict[str, list[tuple[str, str]]]:
    run = result.run
    return {"manifest": list(_flat(run.manifest)), "config": list(_flat(run.config))}


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested mappings as dotted keys with their values."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
