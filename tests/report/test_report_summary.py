"""The numbers of a run are what one computes by hand from its folder.

Run: pytest tests/report/test_report_summary.py
"""

from dataclasses import replace
from pathlib import Path

import pytest
from fabricate import STEPS, grid, sample, summarise, verdicts, write_run, write_scores

from powerbench.report.labels import labels
from powerbench.report.summary import Summary
from powerbench.report.tables.results import results as results_table
from powerbench.report.tables.table import markdown
from powerbench.stats.intervals import wilson
from powerbench.store.writing import create
from powerbench.types import Cost, FinishReason, Score


def of_scores(path: Path, *scores: Score) -> Summary:
    """The summary of a run with one replicate of as many problems as there are scores."""
    samples = [sample(f"p{i}") for i in range(len(scores))]
    return summarise(
        write_run(path / "base-1", samples, {(f"p{i}", 0): s for i, s in enumerate(scores)})
    )


def test_likelihood_and_confidence_are_means_over_responses_of_means_over_tokens(
    tmp_path: Path,
) -> None:
    samples = [
        sample("p0", 0, length=10, logp=-1.0, entropy=2.0),  # -0.1 and -0.2 a token
        sample("p0", 1, length=2, logp=-1.0, entropy=1.2),  # -0.5 and -0.6
        sample("p1", 0, length=0, logp=0.0, entropy=0.0),  # no token: no mean
    ]
    summary = summarise(write_run(tmp_path / "base-1", samples))
    assert summary.logp == pytest.approx(-0.3)
    assert summary.confidence == pytest.approx(-0.4)
    assert summary.length is not None and summary.length.mean == pytest.approx(3)  # (6 + 0) / 2
    assert (summary.problems, summary.replicates, summary.responses) == (2, 2, 3)


def test_cost_counts_rejected_proposals(tmp_path: Path) -> None:
    samples = [
        sample("p0", length=5, cost=Cost(40, 9, 1, 1, 0), steps=STEPS),
        sample(
            "p1",
            length=15,
            cost=Cost(60, 21, 1, 1, 0),
            steps=STEPS[1:],
            finish_reason=FinishReason.LENGTH,
        ),
    ]
    summary = summarise(write_run(tmp_path / "power-1", samples))
    assert summary.decoded_per_token == 100 / 20
    assert summary.prefilled == 30
    assert summary.acceptance == 1 / 5  # the two that stayed decoded nothing
    assert summary.truncated == 0.5


def test_a_sampler_without_steps_has_no_acceptance(tmp_path: Path) -> None:
    assert summarise(write_run(tmp_path / "base-1", [sample()])).acceptance is None


def test_overlapping_responses_share_their_time_and_interruptions_do_not_count(
    tmp_path: Path,
) -> None:
    ends = [(10, 110), (8, 109), (3, 112), (5, 1005)]  # 100..110, 101..109, 109..112; 1000..1005
    samples = [sample(f"p{i}", cost=Cost(4, 7, s, end, 0)) for i, (s, end) in enumerate(ends)]
    assert summarise(write_run(tmp_path / "base-1", samples)).seconds == pytest.approx(12 + 5)


def test_accuracy_is_over_decided_responses_and_the_undecided_are_counted(tmp_path: Path) -> None:
    summary = of_scores(
        tmp_path,
        Score(correct=True),
        Score(correct=False),
        Score(reason="timeout"),
        Score(correct=True),
    )
    assert summary.metric == "accuracy"
    assert summary.value is not None
    assert (summary.value.mean, summary.value.n) == (pytest.approx(2 / 3), 3)
    assert summary.value.interval == pytest.approx(wilson(2, 3))
    assert (summary.undecided, summary.unscored) == (1, 0)


def test_responses_that_no_verifier_saw_are_not_undecided(tmp_path: Path) -> None:
    summary = summarise(
        write_run(tmp_path / "base-1", grid(3, 1), {("p0", 0): Score(correct=True)})
    )
    assert (summary.undecided, summary.unscored) == (0, 2)
    assert summary.value is not None and summary.value.n == 1


def test_preferences_have_no_pass_at_k(tmp_path: Path) -> None:
    summary = of_scores(tmp_path, Score(preference=0.25), Score(preference=0.75))
    assert (summary.metric, summary.pass_at_k) == ("preference", ())
    assert summary.value is not None and summary.value.mean == 0.5


def test_a_run_without_verdicts_has_no_value(tmp_path: Path) -> None:
    unscored = summarise(write_run(tmp_path / "base-1", grid(2, 2)))
    assert (unscored.verifier, unscored.value, unscored.pass_at_k) == (None, None, ())
    undecided = of_scores(tmp_path / "other", Score(), Score())
    assert (undecided.verifier, undecided.value, undecided.undecided) == ("math", None, 2)


def test_a_run_without_samples_is_all_blank(tmp_path: Path) -> None:
    summary = summarise(write_run(tmp_path / "base-1", []))
    assert (summary.responses, summary.value, summary.logp, summary.seconds) == (
        0,
        None,
        None,
        None,
    )


def test_pass_at_k_by_hand(tmp_path: Path) -> None:
    samples = grid(2, 3)
    right = {("p0", 0), ("p0", 1)}  # 2 of 3, and 0 of 3
    scores = {
        (s.problem, s.replicate): Score(correct=(s.problem, s.replicate) in right) for s in samples
    }
    summary = summarise(write_run(tmp_path / "base-1", samples, scores))
    points = {p.k: p.mean for p in summary.pass_at_k}
    assert points == pytest.approx({1: 1 / 3, 2: 1 / 2, 3: 1 / 2})


def test_pass_at_k_is_over_the_problems_whose_replicates_are_all_decided(tmp_path: Path) -> None:
    samples = grid(3, 2)
    scores = verdicts(samples, every=1) | {("p2", 1): Score(reason="timeout")}
    summary = summarise(write_run(tmp_path / "base-1", samples, scores))
    assert [p.k for p in summary.pass_at_k] == [1, 2]
    assert summary.pass_at_k_problems == 2


def test_the_runs_own_verifier_counts_whoever_scored_last(tmp_path: Path) -> None:
    run = write_run(tmp_path / "base-1", [sample()], {("p0", 0): Score(correct=False)})
    write_scores(run, "lenient", {("p0", 0): Score(correct=True)})
    summary = summarise(run)
    assert summary.verifier == "math"
    assert summary.value is not None and summary.value.mean == 0


def test_another_verifier_counts_where_the_runs_own_has_not_scored(tmp_path: Path) -> None:
    run = write_run(tmp_path / "base-1", [sample()])
    write_scores(run, "lenient", {("p0", 0): Score(correct=True)})
    assert summarise(run).verifier == "lenient"


def test_runs_of_a_sweep_are_told_apart_by_their_hash(tmp_path: Path) -> None:
    names = ["base-1a", "power-2b", "power-3c"]
    summaries = [summarise(write_run(tmp_path / name, [sample()])) for name in names]
    assert labels(summaries) == ["base", "power 2b", "power 3c"]


def test_the_length_controlled_win_rate_needs_difficulties_only(tmp_path: Path) -> None:
    samples = [sample(f"p{i}", text="x" * (40 + 7 * i % 50)) for i in range(30)]
    scores = {(s.problem, 0): Score(preference=(i % 7) / 6) for i, s in enumerate(samples)}
    run = write_run(tmp_path / "base-1", samples, scores)
    assert summarise(run).length_controlled is None
    with_difficulty = [
        replace(p, meta={"difficulty": (i % 5) - 2.0})
        for i, p in enumerate(run.problems().values())
    ]
    create(run, (run.path / "config.yaml").read_text(), run.manifest, with_difficulty)
    found = summarise(run).length_controlled
    assert found is not None and found.n == 30
    assert found.interval.low < found.mean < found.interval.high
    assert "LC win rate" in markdown(results_table([summarise(run)]))


def answered(*answers: str | None, right: str) -> dict[int, Score]:
    scores = enumerate(Score(correct=a == right, answer=a) for a in answers)
    return dict(scores)


def test_avg_and_maj_at_n_of_several_replicates(tmp_path: Path) -> None:
    """A vote is by mathematical value: 1/2 and 0.5 are one answer."""
    half = {i: Score(correct=True, answer=a) for i, a in enumerate((r"\frac12", "0.5"))}
    half |= {2: Score(correct=False, answer="2"), 3: Score(correct=False)}
    by_problem = {"p0": half, "p1": answered("7", "7", "7", "1", right="1")}
    scores = {(p, r): s for p, each in by_problem.items() for r, s in each.items()}
    summary = summarise(write_run(tmp_path / "low_temp-1", grid(2, 4), scores))
    assert summary.value is not None and summary.value.mean == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert summary.majority is not None
    assert summary.majority.mean == 0.5  # p0 is won, p1 is lost
    assert summary.majority.interval == wilson(1, 2)
    table = markdown(results_table([summary]))
    assert "maj@n" in table
    assert "0.500 [0.095, 0.905] (n=4)" in table


def test_programs_and_single_responses_have_no_vote(tmp_path: Path) -> None:
    one = summarise(write_run(tmp_path / "base-1", grid(2, 1), verdicts(grid(2, 1))))
    assert one.majority is None
    run = write_run(tmp_path / "base-2", grid(2, 2), verifier={"name": "code"})
    write_scores(run, "code", verdicts(grid(2, 2)))
    assert summarise(run).majority is None
