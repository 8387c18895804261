"""Runs whose model gives text alone, behind an API: which samplers they take, and how their chains start."""

from collections.abc import Callable, Sequence
from functools import partial

from hydra.utils import get_class
from omegaconf import OmegaConf

from powerbench.chains.replies import TextChainSpec
from powerbench.config import RunConfig, conf_dir, options
from powerbench.errors import require
from powerbench.models.base import Model
from powerbench.rng import Stream
from powerbench.samplers.common import Sampler
from powerbench.tasks.column_set import ColumnSet
from powerbench.tasks.common import Task
from powerbench.types import Context, Problem, SampleKey, Tokens

NO_TOKEN = -1
"""Stands for the end-of-sequence token where no token is known."""


def gives_text(model: Model) -> bool:
    """Whether a model gives text alone."""
    return model.driven_by("endpoint")


def samplers(ranking: bool) -> list[str]:
    """The names of the samplers that such a model can be used with. ranking: also those that need
    log-probabilities."""
    found = []
    for name in options("sampler"):
        yaml = OmegaConf.load(conf_dir() / "sampler" / f"{name}.yaml")
        kind: type[Sampler] = get_class(yaml._target_)
        if kind.whole_responses and (ranking or not kind.ranks):
            found.append(name)
    return found


def check_engine(config: RunConfig, model: Model) -> None:
    """Raise UserError unless the engine can drive the model."""
    named, engine = config.choices["model"], config.choices["engine"]
    together = next((each for each in ("toy", "endpoint") if model.driven_by(each)), engine)
    others = (
        f"engine={engine} cannot drive model={named}: leave engine=... away, or set model=endpoint"
    )
    require(
        model.driven_by(engine),
        others
        if "endpoint" in (together, engine)
        else f"model={together} and engine={together} go together: set both, or neither",
    )


def check(model: Model, sampler: Sampler, name: str, problems: Sequence[Problem]) -> None:
    """Raise UserError for what such a model cannot be asked. name: the sampler's."""
    require(
        sampler.whole_responses,
        f"sampler={name} needs the model's weights, and {model.name} is behind an endpoint that gives text "
        f"alone: choose one of {', '.join(samplers(ranking=True))}",
    )
    require(
        getattr(sampler, "top_k", None) is None,
        "sampler.top_k is nothing that an endpoint can be asked for: set it to null",
    )
    for problem in problems:
        require(bool(problem.prompt.text), f"problem {problem.id!r} has an empty prompt")


def stops(task: Task) -> tuple[str, ...]:
    """The texts that end a response in a task, beside what ends it for the model."""
    line_ends = ("\n",) if isinstance(task, ColumnSet) and task.ends_with_line else ()
    return tuple(dict.fromkeys((*task.stop_tokens, *line_ends)))


def start(
    problem: Problem,
    sampler: Sampler,
    answer: Callable[[Tokens | str], str | None] | None,
    stream: Stream,
    key: SampleKey,
) -> TextChainSpec:
    """The chain for a sample. answer: what reads the answers of responses, for a sampler that votes."""
    context = Context(prompt=(), eos=NO_TOKEN, stop_tokens=(), answer=answer)
    return TextChainSpec(key, problem.prompt, partial(sampler.chain, context), stream)
