"""How long responses are, and tokens decoded per token of them: measured, and by the paper's formula."""

from collections.abc import Sequence

from powerbench.report.labels import labels
from powerbench.report.summary import Summary
from powerbench.report.tables.published import Judged, agreement, published
from powerbench.report.tables.table import Column, Table

ENOUGH = 0.05
"""Of a published length: a run that could not have shown a difference of this share is too small to tell."""

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("tokens [95%]", "mean response length; interval over problems", ",.1f"),
    Column("published", "the paper's mean length", ",.0f"),
    Column("agreement", "whether the interval holds the published length, taken for exact"),
    Column(
        "decoded / token",
        "tokens decoded, rejected proposals included, per token of the responses",
        ".2f",
    ),
    Column(
        "N·T/(4B)",
        "the paper's estimate of the same: N steps a block of B tokens, T the mean length here; it counts "
        "whole proposals up to the end of the response, and no first drafts",
        ".2f",
    ),
    Column("measured / estimate", "", ".2f"),
)


def table(summaries: Sequence[Summary]) -> Table:
    """Every run that has responses."""
    rows = []
    for s, label in zip(summaries, labels(summaries), strict=True):
        if s.length is None:
            continue
        judged, formula, cost = _judge(s), multiplier(s), s.decoded_per_token
        ratio = cost / formula if formula and cost is not None else None
        rows.append(
            (
                s.task,
                s.model,
                label,
                s.length,
                judged.published if judged else None,
                str(judged.agreement) if judged else None,
                cost,
                formula,
                ratio,
            )
        )
    return Table("lengths", "Lengths, and tokens decoded", COLUMNS, rows, by=2)


def multiplier(s: Summary) -> float | None:
    """N_MCMC * T / (4 B), T the mean length (the paper's section 4.3); None for a sampler that makes other
    steps than one proposal's, or none."""
    if (
        s.length is None
        or not s.length.mean
        or not {"steps", "blocks", "max_tokens"} <= set(s.settings)
    ):
        return None
    if {"tries", "replicas"} & set(s.settings):
        return None
    block = s.settings["max_tokens"] / s.settings["blocks"]
    return s.settings["steps"] * s.length.mean / (4 * block)


def _judge(s: Summary) -> Judged | None:
    length = published().length(s.task, s.model, s.sampler)
    if length is None or s.length is None or s.changes:
        return None
    return agreement(s.length, length, enough=ENOUGH * length)
