"""The records of a run folder with the lines that are damaged: what `verify` and `repair` go through."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import powerbench
from powerbench.store import Run, checkpoints, records
from powerbench.store.records import Damaged, Line
from powerbench.store.run_folder import SCORES, repeats
from powerbench.types import Keyed, Likelihood, Problem, Sample, SampleKey, Score

NO_REPLICATE = -1
"""Of a problem, which is a line too."""

Places = dict[SampleKey, str]
"""Where the samples are that have been read so far, and the problems."""


class Damage(NamedTuple):
    """Something that is not as it was written, or that is good to know."""

    where: str
    what: str
    harmless: bool = False
    """A note: nothing that is stored is wrong."""


@dataclass(frozen=True)
class ScoreRecord(Score, Keyed):
    """A line of scores/."""


class Bad(NamedTuple):
    """A line that is damaged, or that repeats a sample."""

    line: Line
    why: str


@dataclass(frozen=True)
class Records:
    """A file of records of a run."""

    path: Path
    kind: type[Problem] | type[Sample] | type[ScoreRecord] | type[Likelihood]

    @property
    def name(self) -> str:
        """Within the run folder."""
        inside = self.kind in (ScoreRecord, Likelihood)
        return f"{self.path.parent.name}/{self.path.name}" if inside else self.path.name

    def scan(self, seen: Places) -> Iterator[Problem | Sample | ScoreRecord | Likelihood | Bad]:
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


def key_of(record: Problem | Sample | ScoreRecord | Likelihood) -> SampleKey | None:
    """What only one line may be about; None where the last of several counts."""
    match record:
        case Sample():
            return record.key
        case Problem():
            return SampleKey(record.id, NO_REPLICATE)
        case _:
            return None


class Chain(NamedTuple):
    """The checkpoint of a chain."""

    path: Path
    useless: Damage | None
    """Why it serves no more, if so."""


def problems_of(run: Run) -> Records:
    """The file of a run's problems."""
    return Records(run.path / "problems.jsonl", Problem)


def samples_of(run: Run) -> list[Records]:
    """The files of a run's samples, a shard each."""
    return [Records(run.samples_file(shard), Sample) for shard in run.shards()]


def scores_of(run: Run) -> list[Records]:
    """The files of a run's scores."""
    files = sorted((run.path / "scores").glob("*.jsonl"))
    return [Records(file, ScoreRecord) for file in files if SCORES.fullmatch(file.name)]


def likelihoods_of(run: Run) -> list[Records]:
    """The files of its responses' likelihoods under other models."""
    return [Records(run.likelihoods_file(model), Likelihood) for model in run.scored_by()]


def files_of(run: Run) -> list[Records]:
    """All files of a run that have records."""
    return [problems_of(run), *samples_of(run), *scores_of(run), *likelihoods_of(run)]


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
            yield Chain(path, Damage(name, what))
            continue
        useless = None
        if saved.key in finished:
            useless = Damage(name, "is left over: its sample is finished", harmless=True)
        elif saved.version != powerbench.__version__:
            what = f"is powerbench {saved.version}'s: its chain starts from the beginning"
            useless = Damage(name, what, harmless=True)
        yield Chain(path, useless)
