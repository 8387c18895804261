"""Whether a run folder holds what was written, all of it and once. Everything is read, nothing is changed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.errors import UserError, one_line
from powerbench.store import Run, records
from powerbench.store.owner import lease_of
from powerbench.store.provenance import difference, digest_of, sampler_identity
from powerbench.store.scan import Bad, Damage, Places, ScoreRecord, chains_of, files_of
from powerbench.types import Likelihood, Problem, Sample

BACK = 60.0
"""Seconds by which the clock may run back before it is mentioned: those of two machines differ."""


@dataclass(frozen=True)
class Health:
    """What there is in a run folder, and what is wrong with it."""

    run: Run
    samples: int
    """Intact ones; likewise what follows."""
    scores: int
    likelihoods: int
    """Under other models."""
    unfinished: int
    """Chains with a checkpoint."""
    found: tuple[Damage, ...]

    @property
    def damaged(self) -> int:
        """How many of these are damage, and no mere notes."""
        return sum(not damage.harmless for damage in self.found)


def verify(run: Run) -> Health:
    """Read everything in a run folder, and say what is not as it should be."""
    found = [*_head(run), *_torn(run)]
    counts, seen, places = Counter[type](), Places(), dict[str, int]()
    for file in files_of(run):
        last = float("-inf")
        for record in file.scan(seen):
            counts[type(record)] += 1
            match record:
                case Bad():
                    found.append(Damage(f"{file.name} line {record.line.number}", record.why))
                case Problem():
                    places[record.id] = len(places)
                case Sample():
                    finished = record.cost.finished  # samples are written as they end
                    if finished < last - BACK:
                        found.append(Damage(file.name, _back(record, last), harmless=True))
                    last = finished
    found += _keys(run, seen, places)
    chains = list(chains_of(run, seen))
    found += [chain.useless for chain in chains if chain.useless]
    unfinished = sum(chain.useless is None for chain in chains)
    kinds = counts[Sample], counts[ScoreRecord], counts[Likelihood]
    return Health(run, *kinds, unfinished, tuple(found))


def lines(health: Health) -> Iterator[str]:
    """A run's health in words: a line, and one for every damage or note."""
    path = health.run.path
    fate = f"{health.damaged} DAMAGED" if health.damaged else "sound"
    counts = f"{health.samples:,} samples, {health.scores:,} scores"
    counts += f", {health.likelihoods:,} likelihoods" if health.likelihoods else ""
    chains = f", {health.unfinished:,} unfinished chains" if health.unfinished else ""
    yield f"{path}: {counts}{chains}: {fate}"
    for where, what, harmless in health.found:
        yield f"  {'note   ' if harmless else 'DAMAGED'} {where} {what}"
    if any(" line " in damage.where for damage in health.found if not damage.harmless):
        remedy = "quarantines damaged lines; the run's command makes their content again"
        yield f"  `powerbench verify --repair {path}` {remedy}"


def _back(sample: Sample, last: float) -> str:
    return (
        f"tells that the clock was set back by {last - sample.cost.finished:.0f} s before problem "
        f"{sample.problem!r}, replicate {sample.replicate}, or is another machine's: do not rely on "
        f"seconds and rates"
    )


def _torn(run: Run) -> Iterator[Damage]:
    """Lines without an end, where no one is at work who may be writing them."""
    at_work = {writer.name for writer in run.writers() if writer.alive() is not False}
    for file in files_of(run):
        length = records.torn(file.path)
        if length and lease_of(run.path, file.path) not in at_work:
            what = f"ends with a torn line of {length} bytes, which the next writer cuts off"
            yield Damage(file.name, what, harmless=True)


def _keys(run: Run, seen: Places, places: Mapping[str, int]) -> Iterator[Damage]:
    """Samples of unknown problems, and those that lie in another shard's file."""
    unknown = Counter(key.problem for key in seen if key.problem not in places)  # all are samples
    for problem, count in unknown.items():
        what = f"lacks problem {problem!r}, of which there are {count} samples; the run's command adds it"
        yield Damage("problems.jsonl", what)
    files = [run.samples_file(shard) for shard in run.shards()]
    for path in run.like_samples():
        if path not in files:
            yield Damage(path.name, "is no shard's: it is not read", harmless=True)
    for shard in run.shards():
        name = run.samples_file(shard).name
        wrong = sum(
            where.startswith(f"{name} line ")
            and key.problem in places
            and not shard.holds(places[key.problem], key.replicate)
            for key, where in seen.items()
        )
        if wrong:
            what = f"holds {wrong} samples of other shards than {shard}: it was renamed, or copied"
            yield Damage(name, what, harmless=True)


def _head(run: Run) -> Iterator[Damage]:
    """What is wrong with the configuration and the manifest, and between them."""
    manifest: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}
    try:
        manifest = run.manifest
    except UserError as error:
        yield Damage("manifest.json", one_line(error))
    try:
        config = run.config
    except UserError as error:
        yield Damage("config.yaml", one_line(error))
    if not (run.path / "problems.jsonl").exists():
        yield Damage("problems.jsonl", "is missing; the run's command writes it again")
    identity = manifest.get("identity")
    if not isinstance(identity, Mapping):
        return
    if manifest.get("digest") != digest_of(identity):
        yield Damage("manifest.json", "has a digest that is not that of its identity")
    if config:
        ours: dict[str, Any] = {"sampler": sampler_identity(config.get("sampler") or {})}
        ours["seed"] = config.get("seed")
        ours |= {name: dict(config.get(name) or {}).get("name") for name in ("task", "engine")}
        for line in difference({name: identity.get(name) for name in ours}, ours):
            yield Damage("config.yaml", f"is not what made the samples: {line}")
