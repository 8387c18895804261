"""Programs: the function in a response, run in a sandbox against the problem's tests."""

import platform
from dataclasses import dataclass

from powerbench.errors import require, require_integer, require_number, unknown
from powerbench.types import Problem, Score
from powerbench.verifiers import sandbox
from powerbench.verifiers.code.extract import extract, preamble
from powerbench.verifiers.code.extract_official import extract_official
from powerbench.verifiers.common import MAX_MB, MAX_SECONDS, cores, meta_field

EXTRACTIONS = {"default": extract, "official": extract_official}


@dataclass(frozen=True)
class CodeVerifier:
    """Decides whether the function that a response defines or completes passes `check(entry_point)`.

    mode: how the program is found: `default`, by Python's syntax tree (`extract`); `official`, by the
        rule of the official code (`extract_official`).
    timeout: seconds for the program with its tests; one that needs longer has failed.
    memory_mb: address space of each of its processes, MiB. file_mb: size of what it writes, MiB.
    require_sandbox: refuse to run programs in anything but the strongest sandbox, bubblewrap.
    workers: programs that may run at once; None: one per CPU core.

    Raises UserError for an impossible setting, or if the sandbox that is required does not work here.
    """

    mode: str = "default"
    timeout: float = 5.0
    memory_mb: int = 1024
    file_mb: int = 16
    require_sandbox: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in EXTRACTIONS:
            raise unknown("verifier.mode", self.mode, EXTRACTIONS)
        require_number("verifier.timeout", self.timeout, 0, MAX_SECONDS, "seconds")
        require_integer("verifier.memory_mb", self.memory_mb, 64, MAX_MB)
        require_integer("verifier.file_mb", self.file_mb, 1, MAX_MB)
        if self.workers is None:
            object.__setattr__(self, "workers", cores())
        require_integer("verifier.workers", self.workers, 1)
        if self.require_sandbox:
            strongest = sandbox.MODES[0]
            obstacle = sandbox.available()[strongest]
            require(
                not obstacle,
                f"verifier.require_sandbox=true needs {strongest}, which does not work here "
                f"({obstacle}); set it to false to run programs in the mode {sandbox.best_mode()!r}",
            )

    @property
    def needs(self) -> tuple[str, ...]:
        return ("prompt", "entry_point", "test")

    @property
    def name(self) -> str:
        return "code" if self.mode == "default" else f"code_{self.mode}"

    def score(self, problem: Problem, text: str) -> Score:
        prompt, entry_point, test = (meta_field(problem, field, self.name) for field in self.needs)
        source = EXTRACTIONS[self.mode](prompt, entry_point, text)
        if source is None:
            tried = f"def {entry_point}" in text
            reason = "no usable definition" if tried else "no code"
            return Score(correct=False, reason=reason, by="syntax tree")
        program = sandbox.Program(preamble(prompt, entry_point), source, entry_point, test)
        limits = sandbox.Limits(self.timeout, self.memory_mb, self.file_mb)
        strongest = sandbox.MODES[0] if self.require_sandbox else None
        passed, reason, mode = sandbox.run(program, limits, strongest)
        by = f"{mode}, Python {platform.python_version()}"
        return Score(correct=passed, answer=source, reason=reason, by=by)

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held between calls."""
