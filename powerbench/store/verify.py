"""Whether a run folder holds what was written, all of it and once. Everything is read, nothing is changed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import powerbench
from powerbench.errors import UserError, one_line
from powerbench.store import Run, checkpoints, records
from powerbench.store.provenance import difference, digest_of
from powerbench.store.records import Damaged, Line
from powerbench.store.run_folder import VERDICTS, repeats
from powerbench.types import Likelihood, Problem, Sample, SampleKey, Score

BACK = 60.0
"""Seconds by which the clock may run back before it is mentioned: those of two machines differ."""

NO_REPLICATE = -1
"""Of a problem, which is a line too."""

Places = dict[SampleKey, str]
"""Where the samples are that have been read so far, and the problems."""


class Finding(NamedTuple):
    """Something that is not as it was written, or that is good to know."""

    where: str
    what: str
    damage: bool = True
    """False: a note; nothing that is stored is wrong."""


@dataclass(frozen=True)
class Health:
    """What there is in a run folder, and what is wrong with it."""

    run: Run
    samples: int
    """Intact ones; likewise what follows."""
    verdicts: int
    likelihoods: int
    """Under other models."""
    unfinished: int
    """Chains with a checkpoint."""
    findings: tuple[Finding, ...]

    @property
    def damaged(self) -> int:
        """How many findings are damage."""
        return sum(finding.damage for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Verdict(Score):
    """A line of scores/."""

    problem: str
    replicate: int


class Bad(NamedTuple):
    """A line that is damaged, or that repeats a sample."""

    line: Line
    why: str


@dataclass(frozen=True)
class Records:
    """A file of records of a run."""

    path: Path
    kind: type[Problem] | type[Sample] | type[Verdict] | type[Likelihood]

    @property
    def name(self) -> str:
        """Within the run folder."""
        inside = self.kind in (Verdict, Likelihood)
        return f"{self.path.parent.name}/{self.path.name}" if inside else self.path.name

    def scan(self, seen: Places) -> Iterator[Problem | Sample | Verdict | Likelihood | Bad]:
        """The records and the bad lines, in their order; adds samples to `seen`, of which none is to be
        there already."""
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.kind)
        for line in records.lines(self.path):
            try:
                records.check(self.path, line)
                record = records.decode(self.path, line, decoder)
            except Damaged as error:
                yield Bad(line, error.why)
                continue
            key = key_of(record)
            if key in seen:
                yield Bad(line, repeats(key, seen[key]))
                continue
            if key is not None:
                seen[key] = f"{self.name} line {line.number}"
            yield record


def key_of(record: Problem | Sample | Verdict | Likelihood) -> SampleKey | None:
    """What only one line may be about; None where the last of several counts."""
    match record:
        case Sample():
            return SampleKey(record.problem, record.replicate)
        case Problem():
            return SampleKey(record.id, NO_REPLICATE)
        case _:
            return None


class Chain(NamedTuple):
    """The checkpoint of a chain."""

    path: Path
    useless: Finding | None
    """Why it serves no more, if so."""


def problems_of(run: Run) -> Records:
    """The file of a run's problems."""
    return Records(run.path / "problems.jsonl", Problem)


def samples_of(run: Run) -> list[Records]:
    """The files of a run's samples, a shard each."""
    return [Records(run.samples_file(shard), Sample) for shard in run.shards()]


def verdicts_of(run: Run) -> list[Records]:
    """The files of a run's verdicts."""
    files = sorted((run.path / "scores").glob("*.jsonl"))
    return [Records(file, Verdict) for file in files if VERDICTS.fullmatch(file.name)]


def likelihoods_of(run: Run) -> list[Records]:
    """The files of its responses' likelihoods under other models."""
    return [Records(run.likelihoods_file(model), Likelihood) for model in run.scored_by()]


def files_of(run: Run) -> list[Records]:
    """All files of a run that have records."""
    return [problems_of(run), *samples_of(run), *verdicts_of(run), *likelihoods_of(run)]


def chains_of(run: Run, finished: Places) -> Iterator[Chain]:
    """The checkpoints of a run's chains. finished: the samples that are there."""
    for path in sorted((run.path / "chains").glob("[!.]*.json")):
        name = f"chains/{path.name}"
        try:
            saved = checkpoints.read(path)
        except FileNotFoundError:  # its sample was finished meanwhile
            continue
        except Damaged as error:
            what = f"{error.why}: its chain starts from the beginning"
            yield Chain(path, Finding(name, what))
            continue
        useless = None
        if SampleKey(saved.problem, saved.replicate) in finished:
            useless = Finding(name, "is left over: its sample is finished", damage=False)
        elif saved.version != powerbench.__version__:
            what = f"is powerbench {saved.version}'s: its chain starts from the beginning"
            useless = Finding(name, what, damage=False)
        yield Chain(path, useless)


def examine(run: Run) -> Health:
    """Read everything in a run folder, and say what is not as it should be."""
    findings = [*_head(run), *_torn(run)]
    counts, seen, places = Counter[type](), Places(), dict[str, int]()
    for file in files_of(run):
        last = float("-inf")
        for record in file.scan(seen):
            counts[type(record)] += 1
            match record:
                case Bad():
                    findings.append(Finding(f"{file.name} line {record.line.number}", record.why))
                case Problem():
                    places[record.id] = len(places)
                case Sample():
                    finished = record.cost.finished  # samples are written as they end
                    if finished < last - BACK:
                        findings.append(Finding(file.name, _back(record, last), damage=False))
                    last = finished
    findings += _keys(run, seen, places)
    chains = list(chains_of(run, seen))
    findings += [chain.useless for chain in chains if chain.useless]
    unfinished = sum(chain.useless is None for chain in chains)
    kinds = counts[Sample], counts[Verdict], counts[Likelihood]
    return Health(run, *kinds, unfinished, tuple(findings))


def lines(health: Health) -> Iterator[str]:
    """What to tell of a run's health: a line, and one for every finding."""
    path = health.run.path
    fate = f"{health.damaged} DAMAGED" if health.damaged else "sound"
    counts = f"{health.samples:,} samples, {health.verdicts:,} verdicts"
    counts += f", {health.likelihoods:,} likelihoods" if health.likelihoods else ""
    chains = f", {health.unfinished:,} unfinished chains" if health.unfinished else ""
    yield f"{path}: {counts}{chains}: {fate}"
    for where, what, damage in health.findings:
        yield f"  {'DAMAGED' if damage else 'note   '} {where} {what}"
    if any(" line " in finding.where for finding in health.findings if finding.damage):
        remedy = "sets damaged lines aside; the run's command makes their content again"
        yield f"  `powerbench verify --mend {path}` {remedy}"


def _back(sample: Sample, last: float) -> str:
    return (
        f"tells that the clock was set back by {last - sample.cost.finished:.0f} s before problem "
        f"{sample.problem!r}, replicate {sample.replicate}, or is another machine's: do not rely on "
        f"seconds and rates"
    )


def _torn(run: Run) -> Iterator[Finding]:
    """Lines without an end, where no one is at work who may be writing them."""
    at_work = {writer.name for writer in run.writers() if writer.alive() is not False}
    for file in files_of(run):
        length = records.torn(file.path)
        if length and file.path.stem not in at_work:
            what = f"ends with a torn line of {length} bytes, which the next writer cuts off"
            yield Finding(file.name, what, damage=False)


def _keys(run: Run, seen: Places, places: Mapping[str, int]) -> Iterator[Finding]:
    """Samples of unknown problems, and those that lie in another shard's file."""
    unknown = Counter(key.problem for key in seen if key.problem not in places)  # all are samples
    for problem, count in unknown.items():
        what = f"lacks problem {problem!r}, of which there are {count} samples; the run's command adds it"
        yield Finding("problems.jsonl", what)
    files = [run.samples_file(shard) for shard in run.shards()]
    for path in run.like_samples():
        if path not in files:
            yield Finding(path.name, "is no shard's: it is not read", damage=False)
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
            yield Finding(name, what, damage=False)


def _head(run: Run) -> Iterator[Finding]:
    """What is wrong with the configuration and the manifest, and between them."""
    manifest: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}
    try:
        manifest = run.manifest
    except UserError as error:
        yield Finding("manifest.json", one_line(error))
    try:
        config = run.config
    except UserError as error:
        yield Finding("config.yaml", one_line(error))
    if not (run.path / "problems.jsonl").exists():
        yield Finding("problems.jsonl", "is missing; the run's command writes it again")
    identity = manifest.get("identity")
    if not isinstance(identity, Mapping):
        return
    if manifest.get("digest") != digest_of(identity):
        yield Finding("manifest.json", "has a digest that is not that of its identity")
    if config:
        ours = {name: config.get(name) for name in ("sampler", "seed")}
        ours |= {name: dict(config.get(name) or {}).get("name") for name in ("task", "engine")}
        for line in difference({name: identity.get(name) for name in ours}, ours):
            yield Finding("config.yaml", f"is not what made the samples: {line}")
