"""`powerbench estimate`: how many chains a GPU holds, and what jobs would decode and take. Fetches nothing.

The tokens of a chain follow from its sampler's settings and the length of its response; nobody knows the
lengths before, so every response is taken to be as long as the paper's mean. What early rejection spares is
left out, so that samplers with it decode less than is said. Verifiers, and loading the model, are left out too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from omegaconf import OmegaConf

from powerbench.bench.roofline import (
    GPU,
    GPUS,
    PHI,
    QWEN,
    QWEN_MATH,
    Shape,
    cache_plan,
    step_seconds,
)
from powerbench.bench.work import WORK
from powerbench.config import RunConfig, compose, expand, options
from powerbench.engines.hf.cache_plan import MAX_NUM_SEQS, page_bytes
from powerbench.errors import require, unknown
from powerbench.report.tables.table import Cell, Column, Table

RESPONSE = 679
"""Tokens of a mean response: the paper's, of power sampling on MATH500 (its section 5.3)."""

NOTE = (
    f"Estimates from a roofline and counted overheads, not measured; every response {RESPONSE} tokens long, "
    "but for the longest chain, whose response never ends; without what early rejection and speculation spare, "
    "prompts, verifiers, and loading the model."
)

SHAPES: Mapping[str, Shape] = {
    "Qwen/Qwen2.5-7B": QWEN,
    "Qwen/Qwen2.5-Math-7B": QWEN_MATH,
    "stellalisy/rethink_rlvr_reproduce-ground_truth-qwen2.5_math_7b-lr5e-7-kl0.00-step150": QWEN_MATH,
    "microsoft/Phi-3.5-mini-instruct": PHI,
}
"""By the model's id."""


class Prompts(NamedTuple):
    """A task's problems: how many, and how long their prompts are, in tokens."""

    problems: int
    mean: float
    longest: int


PROMPTS: Mapping[str, Prompts] = {
    "math500": Prompts(500, 150, 816),
    "humaneval": Prompts(164, 140, 395),
    "gpqa_diamond": Prompts(198, 250, 1024),
    "alpaca_eval": Prompts(805, 50, 483),
}
"""Counted with Qwen2.5's tokenizer (the longest of MATH500 and AlpacaEval) and with SmolLM2's (HumanEval). The
other means, and all of GPQA, which is gated, are guesses: its longest is what Qwen2.5-Math's context leaves."""


class Drafts(NamedTuple):
    """How far verified drafts carry a chain of steps; other samplers are taken to have none."""

    per_pass: float = 1.0
    """Tokens decoded in a pass of a sequence."""
    rows: float = 1.0
    """Positions computed for each token decoded."""

    def checked(self) -> "Drafts":
        """Itself. Raises UserError for what no run can have measured."""
        require(self.per_pass >= 1, f"--tokens-per-pass must be >= 1, got {self.per_pass}")
        require(self.rows >= 1, f"--rows-per-token must be >= 1, got {self.rows}")
        return self


NO_DRAFTS = Drafts()


@dataclass(frozen=True)
class Estimate:
    """What one job is expected to be on one GPU."""

    model: str
    task: str
    sampler: str
    settings: str
    """The sampler's settings, which tell apart jobs of the same name."""
    fits: int
    """Sequences that the engine plans to decode at once in that memory."""
    at_once: int
    """Sequences decoded at once: what fits, is allowed, and is there to be decoded."""
    cache: float
    """Bytes reserved for keys and values."""
    tokens: float
    """Decoded in all."""
    rate: float
    """Tokens a second while the batch is full."""
    longest: float
    """Seconds of a chain whose response never ends, alone at its end."""
    replicates: int

    @property
    def seconds(self) -> float:
        """Of the job: decoding at that rate, but not before its longest chain is over."""
        return max(self.tokens / self.rate, self.longest)


def estimate(run: RunConfig, gpu: GPU, drafts: Drafts = NO_DRAFTS) -> Estimate:
    """drafts: of a chain with steps. Raises UserError for what nothing is known of, or does not fit."""
    config, name, engine = run.values, run.choices["sampler"], run.choices["engine"]
    require(engine == "hf", f"the estimate is for engine=hf, got engine={engine}")
    for what, known, asked in (
        ("model to estimate, by its id", SHAPES, config.model.id),
        ("task to estimate", PROMPTS, config.task.name),
        ("sampler to estimate", WORK, name),
    ):
        if asked not in known:
            raise unknown(what, str(asked), known)
    shape, prompts = SHAPES[config.model.id], PROMPTS[config.task.name]
    sampler, model = run.build("sampler"), run.build("model")
    dtype = torch.bfloat16 if model.dtype == "auto" else getattr(torch, model.dtype)
    capacity = prompts.longest + sampler.max_tokens
    most = config.engine.max_num_seqs or MAX_NUM_SEQS["cuda"]
    plan = cache_plan(gpu, shape, capacity, dtype, most)
    require(
        plan.num_seqs > 0,
        f"model {model.name} and one chain of {capacity} tokens do not fit {gpu.memory / 2**30:.0f} GiB",
    )
    length = min(RESPONSE, sampler.max_tokens)
    work, longest = WORK[name](sampler, length), WORK[name](sampler, sampler.max_tokens)
    chains = min(config.limit or prompts.problems, prompts.problems) * config.replicates
    at_once = min(plan.num_seqs, chains * work.together)
    context = prompts.mean + length / 2
    drafted = drafts.checked() if hasattr(sampler, "steps") else NO_DRAFTS
    rows = drafted.per_pass * drafted.rows
    half = prompts.mean + sampler.max_tokens / 2
    last = step_seconds(gpu, shape, work.together, half, dtype, rows)
    full = step_seconds(gpu, shape, at_once, context, dtype, rows)
    return Estimate(
        model=str(model.name),
        task=config.task.name,
        sampler=name,
        settings=str(OmegaConf.to_container(config.sampler, resolve=True)),
        fits=plan.num_seqs,
        at_once=at_once,
        cache=plan.pages * page_bytes(shape, dtype),
        tokens=chains * work.tokens,
        rate=at_once * drafted.per_pass / full,
        longest=longest.depth / drafted.per_pass * last,
        replicates=config.replicates,
    )


def distinct(jobs: Iterable[Estimate]) -> list[Estimate]:
    """Jobs that share a run folder once, the one with most replicates: what it has made serves the others."""
    most: dict[tuple[str, ...], Estimate] = {}
    for job in jobs:
        same = job.model, job.task, job.settings
        if same not in most or job.replicates > most[same].replicates:
            most[same] = job
    return list(most.values())


class Asked(NamedTuple):
    """A job of a command."""

    experiment: str
    variant: str
    """What sets it apart from others of the same model, task and sampler."""
    config: RunConfig


def jobs_of(settings: Sequence[str]) -> list[Asked]:
    """The jobs of a command; without settings, those of every experiment's paper edition."""
    if not settings:
        names = [name for name in options("experiment") if "/paper" in name]
        return [asked for name in names for asked in jobs_of([f"experiment={name}"])]
    jobs = expand(settings, multirun=True).runs
    named = ("model=", "task=", "sampler=", "without=nothing")
    common = {o for o in jobs[0] if all(o in job for job in jobs)}
    found = []
    for overrides in jobs:
        own = [o for o in overrides if o not in common and not o.startswith(named)]
        config = compose(overrides)
        experiment = str(config.choices.get("experiment") or "")
        found.append(Asked(experiment, " ".join(o.removeprefix("sampler.") for o in own), config))
    return found


COLUMNS = (
    Column("experiment"),
    Column("model"),
    Column("task"),
    Column("sampler"),
    Column("at once", "sequences that are decoded at once"),
    Column("fit", "sequences of the longest prompt and response that the memory holds"),
    Column("KV cache (GiB)", "of the sequences that may be decoded at once", ".1f"),
    Column("decoded (M)", "tokens", ".2f"),
    Column("tokens/s", "of a full batch", ",.0f"),
    Column("hours", "decoding at that rate, but not before the longest chain is over", ".2f"),
)


def table(gpu: str, settings: Sequence[str], drafts: Drafts = NO_DRAFTS) -> Table:
    """A row for each job, and one for all of them, those that share a run folder once."""
    if gpu not in GPUS:
        raise unknown("GPU", gpu, GPUS)
    asked = jobs_of(settings)
    found = [estimate(each.config, GPUS[gpu], drafts) for each in asked]
    rows: list[Sequence[Cell]] = [
        (
            each.experiment,
            job.model,
            job.task,
            f"{job.sampler} {each.variant}".strip(),
            job.at_once,
            job.fits,
            job.cache / 2**30,
            job.tokens / 1e6,
            job.rate,
            job.seconds / 3600,
        )
        for each, job in zip(asked, found, strict=True)
    ]
    once = distinct(found)
    tokens, seconds = sum(job.tokens for job in once), sum(job.seconds for job in once)
    together = f"{len(once)} runs, each once"
    rows.append(("all", together, "", "", None, None, None, tokens / 1e6, None, seconds / 3600))
    return Table("estimate", "Estimate", COLUMNS, rows, by=1, names=3, note=NOTE)
