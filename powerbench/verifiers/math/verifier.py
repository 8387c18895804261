"""Mathematical answers: the last boxed expression, compared with the gold answer in a worker process."""

from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from powerbench.errors import require, require_integer, require_number, unknown
from powerbench.types import Problem, Score
from powerbench.verifiers.boxed import answer_boxes
from powerbench.verifiers.boxed_official import official_box
from powerbench.verifiers.common import MAX_MB, MAX_SECONDS, cores, meta_field
from powerbench.verifiers.math import graders
from powerbench.verifiers.math.canonical import canonical
from powerbench.verifiers.workers.pool import Pool, WorkerError

GRADERS = {"default": graders.default, "official": graders.official}
READINGS = {"default": answer_boxes, "official": official_box}
WARM_UP = (r"\left( \frac{1}{2}, x^2 \right)", r"\left( \frac{2}{5}, x^3 \right)")


@dataclass(frozen=True)
class MathVerifier:
    r"""Decides whether the last \boxed{...} or \fbox{...} of a response equals the gold answer.

    mode: `default`, for a careful reader (`boxed.answer_boxes`, `graders.default`); `official`, for the PRM800K
        grader that the official code uses, and its reading (`boxed_official`, `graders.official`).
    timeout: seconds of CPU time for one comparison; one that needs longer is undecided.
    memory_mb: address space that a worker process may add for it, MiB; one that needs more is undecided.
    workers: processes at once; None: one per CPU core.

    Raises UserError for an impossible setting, or if the official grader is not installed.
    """

    mode: str = "default"
    timeout: float = 5.0
    memory_mb: int = 256
    workers: int | None = None
    _pool: Pool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in GRADERS:
            raise unknown("verifier.mode", self.mode, GRADERS)
        require_number("verifier.timeout", self.timeout, 0, MAX_SECONDS, "seconds")
        require_integer("verifier.memory_mb", self.memory_mb, 64, MAX_MB)
        workers = cores() if self.workers is None else self.workers
        require_integer("verifier.workers", workers, 1)
        if self.mode == "official":
            missing = [
                name for name in ("tinker_cookbook", "pylatexenc") if find_spec(name) is None
            ]
            require(
                not missing,
                f"verifier.mode=official needs {' and '.join(missing)}, not installed here; run "
                f"pip install pylatexenc && pip install --no-deps tinker-cookbook",
            )
        object.__setattr__(self, "workers", workers)
        pool = Pool(GRADERS[self.mode], workers, self.memory_mb, warm_up=WARM_UP)
        object.__setattr__(self, "_pool", pool)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("subject",)

    @property
    def name(self) -> str:
        return "math" if self.mode == "default" else f"math_{self.mode}"

    def score(self, problem: Problem, text: str) -> Score:
        meta_field(problem, "subject", self.name)
        boxed = self.read(text)
        if boxed is None:
            return Score(correct=False, reason="no boxed answer", by=graders.TEXT)
        return self.grade(problem, boxed)

    def read(self, text: str) -> str | None:
        """What is boxed."""
        return READINGS[self.mode](text)

    def grade(self, problem: Problem, answer: str) -> Score:
        try:
            score: Score = self._pool.call(problem.gold, answer, timeout=self.timeout)
        except WorkerError as failure:
            return Score(answer=answer, reason=str(failure), by="worker process")
        return replace(score, answer=answer)

    def answer(self, problem: Problem, text: str) -> str | None:
        """What is boxed, as `canonical` spells it, whichever the mode."""
        boxed = answer_boxes(text)
        return canonical(boxed) or None if boxed is not None else None

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        self._pool.close()
