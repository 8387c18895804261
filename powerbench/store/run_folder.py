"""The run folder, the only truth about a run: what it holds, and how it is read.

    config.yaml            the composed configuration
    manifest.json          what produced the run: git, packages, hardware, data and model revisions
    problems.jsonl         the problems as they were shown to the model
    samples.jsonl          one finished sample a line, append-only, keyed by (problem, replicate);
                           of a shard, samples-2-of-8.jsonl
    chains/                checkpoints of unfinished chains, one file each
    writers/               who writes, or wrote last, and how far it is: see `powerbench.store.lease`
    scores/<verifier>.jsonl  scores, apart from samples: re-scoring costs no generation
    likelihoods/<model>.jsonl  log-likelihoods of the responses under another model
    metrics.json           the summary last computed

Each shard has one writer (`powerbench.store.writing`); shards are merged by reading. Every line has a checksum
(`powerbench.store.records`).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import msgspec
import yaml

from powerbench.errors import UserError
from powerbench.store import owner, records
from powerbench.store.owner import Writer
from powerbench.store.records import Damaged
from powerbench.store.shard import WHOLE, Shard
from powerbench.types import Keyed, Likelihood, Problem, Sample, SampleKey, Score

R = TypeVar("R", bound="HasKey")

SAMPLES = "samples"
"""The name of the lease on a shard's samples, before the shard's suffix."""

SCORES = re.compile(r"(.+?)(-\d+-of-\d+)?\.jsonl")
"""A file of scores: the verifier, and the shard's suffix."""


class HasKey(Protocol):
    """What a line of samples.jsonl is decoded into: all of `Sample`, or some of its fields."""

    @property
    def key(self) -> SampleKey: ...


class Place(NamedTuple):
    """Where a sample is stored."""

    shard: Shard
    """In which it was made, and whose file holds it."""
    line: int
    """Of that file, from 1."""
    start: int
    """The offset of the line's first byte."""


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
        """The summary last written; empty if there is none that can be read."""
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
        found = {
            file: Shard.from_suffix(file.stem.removeprefix(SAMPLES)) for file in self.like_samples()
        }
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
        return {line.key for _, line in self.located(Keyed, shard)}

    def stream(self) -> Iterator[Sample]:
        """All finished samples, one at a time, shard by shard. Raises Damaged as `keys` does."""
        return (sample for _, sample in self.located(Sample))

    def samples(self) -> dict[SampleKey, Sample]:
        """All finished samples."""
        return {sample.key: sample for sample in self.stream()}

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
                place = Place(each, line.number, line.start)
                if (first := found.get(record.key)) is not None:
                    why = repeats(
                        record.key, f"{self.samples_file(first.shard).name} line {first.line}"
                    )
                    raise Damaged(f"{path} line {line.number}", why, records.remedy(path))
                found[record.key] = place
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

    # -- scores -----------------------------------------------------------------------------------

    def verifiers(self) -> list[str]:
        """The verifiers that have scored this run: first its own, as configured, then the others by name."""
        names = {SCORES.fullmatch(f.name)[1] for f in (self.path / "scores").glob("*.jsonl")}  # type: ignore[index]
        own = self.config.get("verifier", {}).get("name")
        return sorted(names, key=lambda name: (name != own, name))

    def scores_file(self, verifier: str, shard: Shard = WHOLE) -> Path:
        """Where a verifier's scores are: those made beside a shard, or those of `powerbench score`."""
        return self.path / "scores" / f"{verifier}{shard.suffix}.jsonl"

    def scores(self, verifier: str) -> dict[SampleKey, Score]:
        """The scores by one verifier; of several on one sample, the last that is decided.

        Those of the whole run come after those made beside its shards.
        """
        scores: dict[SampleKey, Score] = {}
        for path in self._score_files(verifier):
            about, decoder = msgspec.json.Decoder(Keyed), msgspec.json.Decoder(Score)
            for line in records.lines(path):
                records.check(path, line)
                key = records.decode(path, line, about).key
                score = records.decode(path, line, decoder)
                if score.value is not None or key not in scores or scores[key].value is None:
                    scores[key] = score
        return scores

    def _score_files(self, verifier: str) -> list[Path]:
        files = [
            (Shard.from_suffix(match[2] or ""), file)
            for file in (self.path / "scores").glob("*.jsonl")
            if (match := SCORES.fullmatch(file.name)) and match[1] == verifier
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

    # -- who writes ------------------------------------------------------------------------------

    def writers(self) -> list[Writer]:
        """The last writer of every shard's samples."""
        folder = self.path / "writers"
        names = [name for name in owner.names(folder) if name.startswith(SAMPLES)]
        found = (owner.latest(folder, name) for name in names)
        return [each for each in found if each is not None]

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
