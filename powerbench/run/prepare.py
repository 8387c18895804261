"""From a configuration to a plan: everything that can fail for a reason that the user can fix."""

import os

from powerbench.config import RunConfig
from powerbench.errors import UserError, require, require_integer, require_number
from powerbench.models.base import Model, Tokenizer
from powerbench.run import in_text
from powerbench.run.plan import Plan
from powerbench.samplers.common import Sampler
from powerbench.store.shard import Shard
from powerbench.store.writing import reserve
from powerbench.tasks.column_set import ColumnSet
from powerbench.tasks.common import Task
from powerbench.types import Tokens
from powerbench.verifiers.common import Answering, require_judges


class PromptTooLongError(UserError):
    """A prompt leaves no room for the longest response: this run cannot be made, whatever others can."""

    def __init__(self, plan: Plan, problem: str, prompt: int) -> None:
        longest, model = plan.sampler.max_tokens, plan.model
        super().__init__(
            f"problem {problem!r} needs {prompt + longest} tokens (prompt {prompt} + max_tokens "
            f"{longest}), but {model.name} has a context of {model.context_length}; set a smaller "
            f"max_tokens"
        )
        self.plan = plan


def prepare(config: RunConfig) -> Plan:
    """Plan a run and reserve its folder: does everything that can fail for a reason that the user can fix.

    Raises UserError for what cannot work, PromptTooLongError last of all.
    """
    _check_numbers(config)
    runs = config.values.runs
    require(
        isinstance(runs, str) and bool(runs),
        f"runs must be a folder's path, got {runs!r}; quote a number: runs=\"'2024'\"",
    )
    shard = _part_of_job(Shard.parse(config.values.shard))
    sampler: Sampler = config.build("sampler")
    model: Model = config.build("model")
    task: Task = config.build("task")
    in_text.check_engine(config, model)
    problems = task.problems(model.kind)
    require(bool(problems), f"task {task.name!r} has no problems")
    some = problems[: config.values.limit]
    tokenizer = None
    if in_text.gives_text(model):
        in_text.check(model, sampler, config.choices["sampler"], some)
    else:
        tokenizer = model.tokenizer()
    plan = Plan(
        config=config,
        sampler=sampler,
        model=model,
        tokenizer=tokenizer,
        task=task,
        task_stop_tokens=_task_stop_tokens(task, tokenizer) if tokenizer else (),
        task_problems=problems,
        prompts={each.id: tokenizer.encode(each.prompt) for each in some} if tokenizer else {},
        shard=shard,
        replicates=1 if sampler.deterministic else int(config.values.replicates),
        seed=int(config.values.seed),
        speculate=int(config.values.speculate),
        checkpoints=bool(config.values.checkpoints),
        lease_timeout=float(config.values.lease_timeout),
    )
    require_judges(plan.verifier, problems)
    _ = plan.text_engine  # raises UserError where there is no key
    _check_votes(plan)
    _check_prompts(plan)
    reserve(plan.run)
    return plan


def _task_stop_tokens(task: Task, tokenizer: Tokenizer) -> Tokens:
    tokens = tuple(tokenizer.token(text) for text in task.stop_tokens)
    one_line = isinstance(task, ColumnSet) and task.ends_with_line
    return (*tokens, *tokenizer.line_ends()) if one_line else tokens


def _check_numbers(config: RunConfig) -> None:
    for name, least in (("limit", 1), ("replicates", 1), ("seed", 0), ("speculate", 0)):
        if name != "limit" or config.values.limit is not None:
            require_integer(name, config.values[name], least)
    require_number("lease_timeout", config.values.lease_timeout, 0, 86400, "seconds")


def _check_votes(plan: Plan) -> None:
    """A sampler that votes needs a verifier that can read answers."""
    choices = plan.config.choices
    require(
        isinstance(plan.verifier, Answering) or not plan.sampler.votes,
        f"sampler={choices['sampler']} votes on answers, which verifier={choices['verifier']} "
        f"cannot tell of task {plan.task.name!r}; use it with a task of mathematics or multiple choice",
    )


def _check_prompts(plan: Plan) -> None:
    """No prompt is empty, and each leaves room for the longest response."""
    for problem, prompt in plan.prompts.items():
        require(bool(prompt), f"problem {problem!r} has an empty prompt")
        if len(prompt) + plan.sampler.max_tokens > plan.model.context_length:
            raise PromptTooLongError(plan, problem, len(prompt))


def _part_of_job(shard: Shard) -> Shard:
    """Of several tasks in one Slurm job, such as one for each GPU, each takes its part of the shard."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # set for what srun has started alone
    return shard.part(int(os.environ.get("SLURM_PROCID", "0")) + 1, tasks) if tasks > 1 else shard
