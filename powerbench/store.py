"""The run folder, the only truth about a run: append, resume, read.

    config.yaml            the composed configuration
    manifest.json          what produced the run: git, packages, hardware, data and model revisions
    problems.jsonl         the problems as they were shown to the model
    samples.jsonl          one finished sample a line, append-only, keyed by (problem, replicate)
    scores/<verifier>.jsonl  verdicts, apart from samples: re-scoring costs no generation
    metrics.json           the summary last computed

A line that a crash has torn is cut off when the file is next opened for writing.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import yaml

from powerbench.errors import UserError
from powerbench.types import Cost, Ended, Problem, Prompt, Sample, Score, Step

T = TypeVar("T")

SESSION_PARTS = ("powerbench", "git", "python", "packages", "hardware", "model", "data")
"""Parts of a manifest that make a resumed session another one."""


class SampleKey(NamedTuple):
    """Names one sample of a run."""

    problem: str
    replicate: int


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was started with."""
        return yaml.safe_load((self.path / "config.yaml").read_text())

    @property
    def manifest(self) -> dict[str, Any]:
        """Provenance, as written by `powerbench.provenance`."""
        return json.loads((self.path / "manifest.json").read_text())

    @property
    def metrics(self) -> dict[str, Any]:
        """The summary last written with `write_metrics`; empty if there is none yet."""
        path = self.path / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def problems(self) -> dict[str, Problem]:
        """The run's problems by id, in the order of the task."""
        return {p.id: p for p in _read(self.path / "problems.jsonl", _problem)}

    def samples(self) -> dict[SampleKey, Sample]:
        """All finished samples."""
        samples = _read(self.path / "samples.jsonl", _sample)
        return {SampleKey(s.problem, s.replicate): s for s in samples}

    def verifiers(self) -> list[str]:
        """The verifiers that have scored this run: first its own, as configured, then the others by name."""
        names = sorted(f.stem for f in (self.path / "scores").glob("*.jsonl"))
        own = self.config.get("verifier", {}).get("name")
        return sorted(names, key=lambda name: name != own)

    def scores(self, verifier: str) -> dict[SampleKey, Score]:
        """The verdicts of one verifier; of several on one sample, the last that is decided."""
        scores: dict[SampleKey, Score] = {}
        for key, score in _read(self.path / "scores" / f"{verifier}.jsonl", _score):
            if score.value is not None or key not in scores or scores[key].value is None:
                scores[key] = score
        return scores

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

    def create(self, config: str, manifest: Mapping[str, Any], problems: Sequence[Problem]) -> None:
        """Write the folder's head; where it is there already, note another machine or code in it.

        config: the composed configuration, as yaml.
        problems: replace those of the same id: what the model was shown is the same (the folder's name
            says so), but a reference answer may have been mended.
        """
        self.reserve()
        _replace(self.path / "config.yaml", config)
        everything = self.problems() | {problem.id: problem for problem in problems}
        lines = (json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in everything.values())
        _replace(self.path / "problems.jsonl", "".join(lines))
        _write_json(self.path / "manifest.json", self._with_history(manifest))

    def _with_history(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """The first session's manifest, with those later ones that differ from the one before."""
        if not (self.path / "manifest.json").exists():
            return manifest
        first = self.manifest
        later = first.setdefault("later_sessions", [])
        before = later[-1] if later else first
        if any(before.get(part) != manifest.get(part) for part in SESSION_PARTS):
            later.append(dict(manifest))
        return first

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        _write_json(self.path / "metrics.json", metrics)

    @contextmanager
    def writer(self) -> Iterator[Callable[[Sample], None]]:
        """Append samples, each flushed to disk as it comes; one writer at a time.

        Raises UserError if another process is writing.
        """
        with append(self.path / "samples.jsonl") as write:
            yield lambda sample: write(asdict(sample))

    @contextmanager
    def score_writer(self, verifier: str) -> Iterator[Callable[[SampleKey, Score], None]]:
        """Append verdicts of one verifier."""
        (self.path / "scores").mkdir(exist_ok=True)
        with append(self.path / "scores" / f"{verifier}.jsonl") as write:
            yield lambda key, score: write(key._asdict() | asdict(score))


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """The run folders at or below the given paths, sorted.

    Raises UserError for a path that holds none.
    """
    found = []
    for path in paths:
        below = sorted(f.parent for f in path.rglob("manifest.json"))
        if not below:
            raise UserError(
                f"{path} holds no run (a folder with manifest.json); see `powerbench run`"
            )
        found += below
    return [Run(path) for path in dict.fromkeys(found)]


@contextmanager
def append(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Append records to a jsonl file under a lock, cutting off a torn last line first."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path} is being written by another process; wait for it, or stop it"
            ) from error
        _cut_torn_line(file)

        def write(record: Mapping[str, Any]) -> None:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

        yield write


def _cut_torn_line(file: IO[bytes]) -> None:
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)


def _read(path: Path, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        try:
            yield parse(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} line {number} is damaged ({error}); remove it") from error


def _problem(record: dict[str, Any]) -> Problem:
    return Problem(**record | {"prompt": Prompt(**record["prompt"])})


def _sample(record: dict[str, Any]) -> Sample:
    return Sample(
        **record
        | {
            "tokens": tuple(record["tokens"]),
            "ended": Ended(record["ended"]),
            "cost": Cost(**record["cost"]),
            "steps": tuple(Step(*step) for step in record["steps"]),
        }
    )


def _score(record: dict[str, Any]) -> tuple[SampleKey, Score]:
    key = SampleKey(record.pop("problem"), record.pop("replicate"))
    return key, Score(**record)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _replace(path: Path, content: str) -> None:
    """Write a whole file at once: a crash leaves the old one or the new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(content)
    unfinished.replace(path)
