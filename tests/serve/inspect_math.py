"""task=math_mini for inspect_ai, each prompt a user's turn; run by its own command, in its own environment."""

from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate


@task
def math_mini(items: str) -> Task:
    return Task(
        dataset=json_dataset(items),
        solver=generate(),
        scorer=pattern(r"(?s).*\\boxed\{(.+?)\}"),
        config=GenerateConfig(stop_seqs=["\n"]),
    )
