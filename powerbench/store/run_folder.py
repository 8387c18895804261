"""The run folder, the only truth about a run: append, resume, read.

    config.yaml            the composed configuration
    manifest.json          what produced the run: git, packages, hardware, data and model revisions
    problems.jsonl         the problems as they were shown to the model
    samples.jsonl          one finished sample a line, append-only, keyed by (problem, replicate);
                           of a shard, samples-2-of-8.jsonl
    chains/                checkpoints of unfinished chains, one file each
    writers/               who writes, or wrote last, and how far it is: see `powerbench.store.lease`
    scores/<verifier>.jsonl  verdicts, apart from samples: re-scoring costs no generation
    likelihoods/<model>.jsonl  log-likelihoods of the responses under another model
    metrics.json           the summary last computed

Each shard has one writer; shards are merged by reading. Every line has a checksum (`powerbench.store.records`).
"""

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import msgspec
import yaml

from powerbench.errors import UserError, require
from powerbench.store import lease, owner, records
from powerbench.store.checkpoints import Checkpoints
from powerbench.store.lease import LEASE_TIMEOUT, Lease, leased
from powerbench.store.owner import Progress, Writer
from powerbench.store.provenance import difference, with_session
from powerbench.store.records import Appender, CheckLease, Damaged
from powerbench.store.shard import WHOLE, Shard, of_suffix
from powerbench.types import Checkpoint, Likelihood, Problem, Sample, SampleKey, Score

R = TypeVar("R", bound="Keyed")

SAMPLES = "samples"
"""The name of the lease on a shard's samples, before the shard's suffix."""

VERDICTS = re.compile(r"(.+?)(-\d+-of-\d+)?\.jsonl")
"""A file of verdicts: the verifier, and the shard's suffix."""


class Keyed(Protocol):
    """What a line of samples.jsonl is decoded into: all of `Sample`, or some of its fields."""

    @property
    def problem(self) -> str: ...

    @property
    def replicate(self) -> int: ...


class _Keyed(msgspec.Struct):
    """What a line of samples or verdicts is about."""

    problem: str
    replicate: int

    @property
    def key(self) -> SampleKey:
        return SampleKey(self.problem, self.replicate)


class Place(NamedTuple):
    """Where a sample is stored."""

    shard: Shard
    """In which it was made, and whose file holds it."""
    line: int
    """Of that file, from 1."""
    start: int
    """The offset of the line's first byte."""


class Writing:
    """The one writer of a shard's samples: to be had by `Run.writing`."""

    def __init__(self, run: "Run", samples: Appender, held: Lease) -> None:
        self.progress: Progress = held.progress
        self._samples, self._lease = samples, held
        self._chains = Checkpoints(run.path / "chains")

    def write(self, sample: Sample) -> None:
        """Store a finished sample: on the disk when this returns.

        Waits while the disk is full. Raises Lost if another process has taken the shard over.
        """
        self._samples.write(sample)
        self._chains.remove(sample.problem, sample.replicate)
        self.progress.done += 1
        self.progress.made += 1
        if self.progress.made == 1:  # from then on there is a rate to be shown
            self._lease.beat()

    def save(self, key: SampleKey, checkpoint: Checkpoint) -> None:
        """Store where an unfinished chain stands, in the place of its last checkpoint."""
        self._chains.save(*key, checkpoint, self._lease.require_held)

    def resume(self, key: SampleKey) -> Checkpoint | None:
        """Where an unfinished chain stands; None if it has to start from the beginning."""
        return self._chains.load(*key)

    def beat(self) -> None:
        """Show the progress now, rather than at the next beat."""
        self._lease.beat()


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was started with. Raises UserError if it is missing or damaged."""
        return self._head("config.yaml", yaml.safe_load)

    @property
    def manifest(self) -> dict[str, Any]:
        """Provenance, as written by `powerbench.store.provenance`. Raises UserError if missing or damaged."""
        return self._head("manifest.json", json.loads)

    @property
    def metrics(self) -> dict[str, Any]:
        """The summary last written with `write_metrics`; empty if there is none that can be read."""
        try:
            return self._head("metrics.json", json.loads)
        except UserError:
            return {}

    def problems(self) -> "Problems":
        """The run's problems by id, in the order of the task."""
        path = self.path / "problems.jsonl"
        return Problems(self, {p.id: p for p in records.read(path, Problem)})

    # -- samples ----------------------------------------------------------------------------------

    def shards(self) -> list[Shard]:
        """Those that have written samples; of several partitions, if there were several."""
        found = {file: of_suffix(file.stem.removeprefix(SAMPLES)) for file in self.like_samples()}
        return sorted(s for file, s in found.items() if self.samples_file(s) == file)

    def like_samples(self) -> list[Path]:
        """All files that are named like samples, such as copies: only those of shards are read."""
        return sorted(self.path.glob(f"{SAMPLES}*.jsonl"))

    def samples_file(self, shard: Shard = WHOLE) -> Path:
        """Where a shard's samples are."""
        return self.path / f"samples{shard.suffix}.jsonl"

    def keys(self, shard: Shard = WHOLE) -> set[SampleKey]:
        """The keys of finished samples. Nothing else is decoded, but every checksum is checked.

        shard: read only the files that may hold samples of it.
        Raises Damaged for a line that is not what was written, or that repeats a sample.
        """
        return {line.key for _, line in self.located(_Keyed, shard)}

    def stream(self) -> Iterator[Sample]:
        """All finished samples, one at a time, shard by shard. Raises Damaged as `keys` does."""
        return (sample for _, sample in self.located(Sample))

    def samples(self) -> dict[SampleKey, Sample]:
        """All finished samples."""
        return {SampleKey(s.problem, s.replicate): s for s in self.stream()}

    def located(self, kind: type[R], shard: Shard = WHOLE) -> Iterator[tuple[Place, R]]:
        """All finished samples with their places; of each only the fields that `kind` has are decoded.

        shard: as for `keys`. Raises Damaged as `keys` does.
        """
        decoder, found = msgspec.json.Decoder(kind), dict[SampleKey, Place]()
        for each in [each for each in self.shards() if each.overlaps(shard)]:
            path = self.samples_file(each)
            for line in records.lines(path):
                records.check(path, line)
                record = records.decode(path, line, decoder)
                key, place = (
                    SampleKey(record.problem, record.replicate),
                    Place(each, line.number, line.start),
                )
                if key in found:
                    first = found[key]
                    why = repeats(key, f"{self.samples_file(first.shard).name} line {first.line}")
                    raise Damaged(f"{path} line {line.number}", why, records.set_aside(path))
                found[key] = place
                yield place, record

    def at(self, places: Iterable[Place]) -> Iterator[Sample]:
        """The samples at these places, in their order: no other line is read.

        Raises Damaged for a line that is not what was written.
        """
        decoder, files = msgspec.json.Decoder(Sample), dict[Shard, IO[bytes]]()
        with ExitStack() as open_files:
            for place in places:
                path = self.samples_file(place.shard)
                if place.shard not in files:
                    files[place.shard] = open_files.enter_context(path.open("rb"))
                line = records.line_at(files[place.shard], place.line, place.start)
                records.check(path, line)
                yield records.decode(path, line, decoder)

    # -- verdicts ---------------------------------------------------------------------------------

    def verifiers(self) -> list[str]:
        """The verifiers that have scored this run: first its own, as configured, then the others by name."""
        names = {VERDICTS.fullmatch(f.name)[1] for f in (self.path / "scores").glob("*.jsonl")}  # type: ignore[index]
        own = self.config.get("verifier", {}).get("name")
        return sorted(names, key=lambda name: (name != own, name))

    def scores_file(self, verifier: str, shard: Shard = WHOLE) -> Path:
        """Where a verifier's verdicts are: those made beside a shard, or those of `powerbench score`."""
        return self.path / "scores" / f"{verifier}{shard.suffix}.jsonl"

    def scores(self, verifier: str) -> dict[SampleKey, Score]:
        """The verdicts of one verifier; of several on one sample, the last that is decided.

        Those on the whole run come after those made beside its shards.
        """
        scores: dict[SampleKey, Score] = {}
        for path in self._verdicts(verifier):
            about, verdict = msgspec.json.Decoder(_Keyed), msgspec.json.Decoder(Score)
            for line in records.lines(path):
                records.check(path, line)
                key = records.decode(path, line, about).key
                score = records.decode(path, line, verdict)
                if score.value is not None or key not in scores or scores[key].value is None:
                    scores[key] = score
        return scores

    def _verdicts(self, verifier: str) -> list[Path]:
        files = [
            (of_suffix(match[2] or ""), file)
            for file in (self.path / "scores").glob("*.jsonl")
            if (match := VERDICTS.fullmatch(file.name)) and match[1] == verifier
        ]
        return [file for _, file in sorted(files, key=lambda each: (each[0] == WHOLE, each[0]))]

    # -- likelihoods under other models -----------------------------------------------------------

    def likelihoods_file(self, model: str) -> Path:
        """Where the likelihoods of the run's responses under a model are."""
        return self.path / "likelihoods" / f"{model}.jsonl"

    def scored_by(self) -> list[str]:
        """The models under which the responses have been scored."""
        return sorted(file.stem for file in (self.path / "likelihoods").glob("*.jsonl"))

    def likelihoods(self, model: str) -> Iterator[Likelihood]:
        """Those that are there, one at a time. Raises Damaged."""
        return records.read(self.likelihoods_file(model), Likelihood)

    # -- writing ----------------------------------------------------------------------------------

    def writers(self) -> list[Writer]:
        """The last writer of every shard's samples."""
        folder = self.path / "writers"
        names = [name for name in owner.names(folder) if name.startswith(SAMPLES)]
        found = (owner.latest(folder, name) for name in names)
        return [each for each in found if each is not None]

    def reserve(self) -> None:
        """Make the folder. Raises UserError where that is not allowed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
        except OSError as error:
            raise UserError(
                f"cannot write the run folder {self.path}: {error.strerror}; "
                f"set `runs=<a folder you can write to>`"
            ) from error

    @contextmanager
    def writing(
        self, shard: Shard = WHOLE, lease_timeout: float = LEASE_TIMEOUT
    ) -> Iterator[Writing]:
        """Write a shard's samples, as the only one who does.

        lease_timeout: seconds without a beat after which a writer on another machine counts as dead.
        Raises UserError if another process writes this shard, or one that overlaps with it.
        """
        self.reserve()
        (self.path / "chains").mkdir(exist_ok=True)
        what = f"{self.path} (shard {shard})" if shard != WHOLE else str(self.path)
        with leased(self.path, f"{SAMPLES}{shard.suffix}", what, lease_timeout) as held:
            self._require_apart(shard, what, lease_timeout)
            with records.appending(
                self.samples_file(shard), check_lease=held.require_held
            ) as samples:
                yield Writing(self, samples, held)

    def _require_apart(self, shard: Shard, what: str, lease_timeout: float) -> None:
        writers = self.path / "writers"
        for other in self.writers():
            theirs = of_suffix(other.name.removeprefix(SAMPLES))
            if theirs == shard or not theirs.overlaps(shard):
                continue
            if (alive := lease.retire(writers, other.name, what, lease_timeout)) is not None:
                raise UserError(
                    f"{self.path}: shard {shard} overlaps with shard {theirs}, which is being written by "
                    f"{alive.who}; wait for it, stop it, or choose shard=.../{theirs.of}"
                )

    @contextmanager
    def score_writer(
        self,
        verifier: str,
        shard: Shard = WHOLE,
        lease_timeout: float = LEASE_TIMEOUT,
        check_lease: CheckLease = lambda: None,
    ) -> Iterator[Callable[[SampleKey, Score], None]]:
        """Append verdicts of one verifier, as the only one who does: on the whole run, or on one shard.

        lease_timeout: as for `writing`.
        check_lease: is called before each attempt to write; what it raises ends the wait for a full disk.
        """
        path = self.scores_file(verifier, shard)
        path.parent.mkdir(exist_ok=True)
        name = f"scores-{path.stem}"
        with leased(self.path, name, str(path), lease_timeout) as held:

            def may_write() -> None:
                check_lease()
                held.require_held()

            with records.appending(path, check_lease=may_write) as file:
                yield lambda key, score: file.write(key._asdict() | asdict(score))

    def create(
        self,
        config: str,
        manifest: Mapping[str, Any],
        problems: Sequence[Problem],
    ) -> None:
        """Write the folder's head; where it is there already, note another machine or code in it.

        config: the composed configuration, as yaml.
        problems: replace those of the same id: what the model was shown is the same (the manifest's
            identity says so), but a reference answer may have been mended.
        Raises UserError if what is there was made by another configuration, or by none that is known.
        """
        self.reserve()
        with leased(self.path, "head", f"{self.path} (its head)", briefly=True):
            self._require_same(manifest)
            ordered = {problem.id: problem for problem in problems}  # the task's order comes first
            others = [each for each in self.problems().values() if each.id not in ordered]
            lines = b"".join(map(records.encode, [*problems, *others]))
            records.put(self.path / "problems.jsonl", lines, durable=True)
            records.put(self.path / "config.yaml", config.encode(), durable=True)
            if (self.path / "manifest.json").exists():
                manifest = with_session(self.manifest, manifest)
            records.put(self.path / "manifest.json", _json(manifest), durable=True)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Store a summary; what is not finite is stored as null."""
        records.put(self.path / "metrics.json", _json(_finite(metrics)))

    def _require_same(self, manifest: Mapping[str, Any]) -> None:
        if not (self.path / "manifest.json").exists():
            files = [self.samples_file(shard) for shard in self.shards()]
            full = next((file for file in files if file.stat().st_size), None)
            require(
                full is None,
                f"{self.path} holds samples but no manifest.json, so that what made them is not known: "
                f"restore it from a copy, or move the folder away",
            )
            return
        there, here = self.manifest, manifest
        if there.get("digest") != here.get("digest"):
            differences = difference(there.get("identity", {}), here.get("identity", {}))
            raise UserError(
                f"{self.path} was made by another configuration "
                f"({'; '.join(differences) or 'of which nothing is recorded'}): move the folder away, "
                f"or choose another with `runs=...`"
            )

    def _head(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        again = "repeat the run's command, which writes it again"
        remedy = "restore it from a copy, or move the folder away"
        remedy = remedy if name == "manifest.json" else again
        try:
            found = parse((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{self.path} has no {name}: {remedy}") from error
        except (ValueError, yaml.YAMLError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise UserError(f"{self.path / name} is damaged: {first}; {remedy}") from error
        if not isinstance(found, dict):
            raise UserError(f"{self.path / name} is damaged: it holds no settings; {remedy}")
        return found


class Problems(dict[str, Problem]):
    """The problems of a run, by id."""

    def __init__(self, run: Run, problems: Mapping[str, Problem]) -> None:
        super().__init__(problems)
        self._run = run

    def __missing__(self, problem: str) -> Problem:
        raise UserError(
            f"{self._run.path / 'problems.jsonl'} lacks problem {problem!r}, of which there are samples; "
            f"repeat the run's command, which adds it"
        )


def repeats(key: SampleKey, where: str) -> str:
    """What is wrong with a second sample of a key. where: the first one's place."""
    return f"repeats {where} (problem {key.problem!r}, replicate {key.replicate})"


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """The run folders at or below the given paths, sorted.

    Raises UserError for a path that holds none.
    """
    found = []
    for path in paths:
        marks = ("manifest.json", "samples*.jsonl", "writers")
        below = sorted({file.parent for mark in marks for file in path.rglob(mark)})
        if not below:
            raise UserError(
                f"{path} holds no run (a folder with manifest.json); see `powerbench run`"
            )
        found += below
    return [Run(path) for path in dict.fromkeys(found)]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
