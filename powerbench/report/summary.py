"""One run as numbers: each with its interval or its n, computed from the run folder alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, takewhile
from statistics import fmean
from typing import Any, TypeVar

from powerbench.report.chains import Chains, StepCounts
from powerbench.report.costs import dollars, flops_of, gpu_hours
from powerbench.report.populations import Coverage, LastRound, coverage
from powerbench.report.samples import (
    SampleStats,
    confidence,
    logp_per_token,
    read_samples,
    wall_clock,
)
from powerbench.report.variants import changes
from powerbench.report.votes import majority_at_n
from powerbench.stats.intervals import (
    Count,
    Estimate,
    PassAtK,
    clustered,
    normal,
    pass_at_k_curve,
    student,
)
from powerbench.stats.length_controlled import Unfitted, annotation, length_controlled
from powerbench.store import Run
from powerbench.store.shard import Shard
from powerbench.types import Problem, Sample, SampleKey, Score

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """The results of a run, and what they cost. None: not applicable, or not known yet."""

    task: str
    model: str
    sampler: str
    run: str
    """The name of the run folder, which ends in the hash of its settings."""
    settings: Mapping[str, Any]
    """The sampler's."""
    changes: Mapping[str, Any]
    """Those of them that its yaml has otherwise: empty for a sampler's main run."""
    problems: int
    replicates: int
    """The most samples that a problem has."""
    fewest: int
    """The fewest."""
    deterministic: bool
    """Whether the sampler draws nothing: then each problem has one response, whatever was asked for."""
    responses: int
    verifier: str | None
    metric: str | None
    """What `value` is: accuracy, or preference over the baseline's responses."""
    value: Estimate | None
    """Over decided responses only, with its 95% interval over problems."""
    length_controlled: Estimate | None
    """AlpacaEval's length-controlled win rate, if the instructions' difficulties are known."""
    undecided: int
    """Responses on which the verifier could not decide."""
    unscored: int
    """Responses that no verifier has seen."""
    length: Estimate | None
    """Mean response length, tokens, with its 95% interval over problems."""
    logp: float | None
    """Log-likelihood per token under the base model, nats: mean over responses."""
    logp_interval: Estimate | None
    """The same as a mean over problems, with its 95% interval."""
    confidence: float | None
    """Minus the entropy per token, nats: mean over responses (the paper's section 5.3)."""
    decoded: int
    """Tokens decoded, rejected proposals included."""
    decoded_per_token: float | None
    """The same, for each token of the responses."""
    passes: int | None
    """Decoding passes, those of each sequence counted by itself, one that verifies a draft counted once. None
    of an endpoint, as `rows`."""
    passes_per_token: float | None
    """The same, for each token of the responses."""
    rows: int | None
    """Token positions that these passes computed, rejected drafted tokens included."""
    speculated: int
    """Tokens decoded ahead and thrown away, which `decoded` does not hold."""
    prefilled: int
    """Tokens computed in prefills."""
    flops: float | None
    """Floating-point operations of all rows and prefills, speculation left out."""
    acceptance: float | None
    """Accepted steps among those that decoded a proposal."""
    truncated: float | None
    """Fraction of responses that end at the length limit, without a stop token."""
    refused: float | None
    """Fraction of responses that an endpoint refused, in whole or in part; None if it refused none."""
    seconds: float | None
    """Wall-clock: the time during which at least one response was being worked on."""
    dollars: float | None
    """What an endpoint's bill says, US dollars; None where that of any response is not known."""
    gpu_hours: float | None
    """The same for each shard, times its GPUs; None where none was used."""
    pass_at_k: tuple[PassAtK, ...]
    """For k = 1, 2, 4 ... K, where K is the most decided responses that a problem has."""
    pass_at_k_problems: int
    """How many problems have K decided responses: the curve is theirs."""
    majority: Estimate | None
    """Accuracy of the vote among these K responses (maj@K); None where there are no answers to vote with."""
    coverage: Coverage | None
    """How often some member of the population that a response was chosen from is right; None where the sampler
    has none, or its members' answers were not kept."""


@dataclass(frozen=True)
class Results:
    """A run folder, read once; without its texts, which `Run.at` reads."""

    run: Run
    problems: Mapping[str, Problem]
    samples: Mapping[SampleKey, SampleStats]
    all_scores: Mapping[str, Mapping[SampleKey, Score]]
    """Of the samples, by verifier: the run's own first."""
    steps: StepCounts
    """Of all samples of the run."""
    last_rounds: Mapping[SampleKey, LastRound] = field(default_factory=dict)
    """Of all samples of the run, if its sampler chooses from several whole responses."""
    model: str | None = None
    """What a report calls its model, where others have the same name."""

    @classmethod
    def read(cls, run: Run) -> "Results":
        (samples, steps, last_rounds), problems, all_scores = read_samples(run), run.problems(), {}
        for problem in {key.problem for key in samples}:
            problems[problem]  # raises UserError where it is missing
        for verifier in run.verifiers():
            scores = run.scores(verifier)
            all_scores[verifier] = {key: scores[key] for key in samples if key in scores}
        return cls(run, problems, samples, all_scores, steps, last_rounds)

    @property
    def verifier(self) -> str | None:
        """The one whose scores the summary counts: the run's own, if it has scored."""
        return next(iter(self.all_scores), None)

    @property
    def scores(self) -> Mapping[SampleKey, Score]:
        """Its scores."""
        return self.all_scores.get(self.verifier or "", {})

    @cached_property
    def chains(self) -> Chains | None:
        """How the chains of the whole run went; None if no step has decoded a proposal."""
        return self.steps.chains()

    def texts(self, keys: Iterable[SampleKey]) -> dict[SampleKey, Sample]:
        """These samples in full: read again, but no others with them."""
        found = self.run.at(self.samples[key].place for key in keys)
        return {sample.key: sample for sample in found}

    @cached_property
    def summary(self) -> Summary:
        """The run as numbers."""
        config, samples = self.run.config, list(self.samples.values())
        manifest, full = self.run.manifest, _full(self.scores)
        passes = _total(s.passes for s in samples)
        return Summary(
            task=config["task"]["name"],
            model=self.model or config["model"]["name"],
            sampler=config["sampler"]["name"],
            run=self.run.path.name,
            settings={k: v for k, v in config["sampler"].items() if k not in ("name", "_target_")},
            changes=changes(config),
            problems=len({key.problem for key in self.samples}),
            replicates=max((len(r) for r in _by_problem(self.samples).values()), default=0),
            fewest=min((len(r) for r in _by_problem(self.samples).values()), default=0),
            deterministic=manifest.get("sampler", {}).get("deterministic", False),
            responses=len(samples),
            verifier=self.verifier,
            metric=_metric(self.scores.values()),
            value=mean_value(self.scores),
            length_controlled=self._length_controlled(),
            undecided=sum(score.value is None for score in self.scores.values()),
            unscored=len(samples) - len(self.scores),
            length=_over_problems({k: s.tokens for k, s in self.samples.items()}),
            logp=_mean(logp_per_token(samples)),
            logp_interval=_over_problems(
                {k: each for k, s in self.samples.items() if (each := s.logp_per_token) is not None}
            ),
            confidence=_mean(confidence(samples)),
            decoded=sum(s.decoded for s in samples),
            decoded_per_token=_ratio(
                sum(s.decoded for s in samples), sum(s.tokens for s in samples)
            ),
            passes=passes,
            passes_per_token=_ratio(passes, sum(s.tokens for s in samples)) if passes else None,
            rows=_total(s.rows for s in samples),
            speculated=sum(s.speculated for s in samples),
            prefilled=sum(s.prefilled for s in samples),
            flops=flops_of(manifest, samples),
            acceptance=_ratio(sum(s.accepted for s in samples), sum(s.proposals for s in samples)),
            truncated=_mean(s.truncated for s in samples),
            refused=_mean(s.refused for s in samples) or None,
            seconds=wall_clock(samples),
            dollars=dollars(samples),
            gpu_hours=gpu_hours(config, manifest, samples),
            pass_at_k=tuple(_pass_at_k(full)),
            pass_at_k_problems=len(full),
            majority=majority_at_n(self.verifier, self.scores),
            coverage=coverage(self.scores),
        )

    def part(self, shard: Shard) -> "Results":
        """Those of one shard; `chains` stays that of the whole run."""
        place = {problem: i for i, problem in enumerate(self.problems)}
        samples = {
            key: sample
            for key, sample in self.samples.items()
            if shard.holds(place[key.problem], key.replicate)
        }
        all_scores = {
            verifier: {key: score for key, score in scores.items() if key in samples}
            for verifier, scores in self.all_scores.items()
        }
        return replace(self, samples=samples, all_scores=all_scores)

    def _length_controlled(self) -> Estimate | None:
        annotations = [
            annotation(self.problems[key.problem], self.samples[key].characters, score.preference)
            for key, score in self.scores.items()
            if "difficulty" in self.problems[key.problem].meta
        ]
        fitted = length_controlled(annotations)
        if isinstance(fitted, Unfitted):
            return None
        return normal(fitted.rate.value, fitted.standard_error, fitted.rate.n)


def mean_value(scores: Mapping[SampleKey, Score]) -> Estimate | None:
    """The mean over problems of the decided scores, with its interval; None if there are none."""
    decided = {key: score.value for key, score in scores.items() if score.value is not None}
    return clustered(_by_problem(decided)) if decided else None


def _metric(scores: Iterable[Score]) -> str | None:
    decided = next((s for s in scores if s.value is not None), None)
    if decided is None:
        return None
    return "preference" if decided.correct is None else "accuracy"


def _full(scores: Mapping[SampleKey, Score]) -> list[Count]:
    """The counts of the problems that have the most decided replicates: the same for every k."""
    correct = {key: s.correct for key, s in scores.items() if s.correct is not None}
    counts = [Count(len(v), sum(v)) for v in _by_problem(correct).values()]
    most = max((c.n for c in counts), default=0)
    return [c for c in counts if c.n == most]


def _pass_at_k(counts: Sequence[Count]) -> list[PassAtK]:
    if not counts:
        return []
    most = counts[0].n
    powers = takewhile(lambda k: k < most, (2**i for i in count()))
    return pass_at_k_curve(counts, [*powers, most], seed=0)


def _by_problem(values: Mapping[SampleKey, T]) -> dict[str, list[T]]:
    grouped = defaultdict(list)
    for key, value in values.items():
        grouped[key.problem].append(value)
    return grouped


def _over_problems(values: Mapping[SampleKey, float]) -> Estimate | None:
    return student(_by_problem(values)) if values else None


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None


def _total(counts: Iterable[int | None]) -> int | None:
    """Their sum; None where any is not known."""
    every = list(counts)
    known = [count for count in every if count is not None]
    return sum(known) if len(known) == len(every) else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
