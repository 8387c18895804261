"""A run is prepared once, its verifier is built once, and its engine is loaded only when it is needed.

Run: pytest tests/run/test_execute.py
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from powerbench.cli import main
from powerbench.cluster.sweep import check
from powerbench.engines.toy import ToyEngine
from powerbench.models.toy import ToyTokenizer
from powerbench.run import plan
from powerbench.tasks.alpaca_eval import AlpacaEval
from powerbench.tasks.math_set import MathSet

TOY = ["model=toy", "engine=toy", "max_tokens=8", "blocks=2", "tracker=none", "limit=3"]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each costly thing is done, counted from here on."""
    found: Counter[str] = Counter()

    def count(where: Any, name: str, what: str) -> None:
        inner: Callable[..., Any] = getattr(where, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            found[what] += 1
            return inner(*arguments, **options)

        monkeypatch.setattr(where, name, counted)

    count(MathSet, "problems", "data sets read")
    count(AlpacaEval, "problems", "data sets read")
    count(ToyTokenizer, "encode", "texts tokenised")
    count(plan, "make_verifier", "verifiers built")
    count(ToyEngine, "__init__", "engines loaded")
    return found


def test_a_single_run_is_prepared_once(tmp_path: Path, counts: Counter[str]) -> None:
    main(["run", *TOY, "task=math_mini", f"runs={tmp_path}"])
    assert counts == {
        "data sets read": 1,
        "texts tokenised": 3 + 1,  # the prompts, and what ends a line
        "verifiers built": 1,
        "engines loaded": 1,
    }


@pytest.mark.parametrize("task", ["math_mini", "instructions_mini"])
def test_a_finished_run_that_is_repeated_loads_nothing(
    task: str, tmp_path: Path, counts: Counter[str]
) -> None:
    """Not even where the verifier asks the run's own model."""
    command = ["run", *TOY, f"task={task}", f"runs={tmp_path}"]
    main(command)
    assert (counts["engines loaded"], counts["verifiers built"]) == (1, 1)
    main(command)
    assert (counts["engines loaded"], counts["verifiers built"]) == (1, 2)


def test_a_verifier_that_asks_the_runs_model_loads_it_to_ask(
    tmp_path: Path, counts: Counter[str]
) -> None:
    command = ["run", *TOY, "task=instructions_mini", f"runs={tmp_path}"]
    main(command)
    (scores,) = tmp_path.rglob("scores/*.jsonl")
    scores.unlink()
    main(command)
    assert counts["engines loaded"] == 2
    assert len(scores.read_text().splitlines()) == 3


def test_the_shards_of_a_sweep_are_planned_once(tmp_path: Path, counts: Counter[str]) -> None:
    plans = check([["task=math_mini", *TOY, f"runs={tmp_path}", f"shard={n}/3"] for n in (1, 2, 3)])
    assert (counts["data sets read"], counts["verifiers built"]) == (1, 1)
    assert [str(each.shard) for each in plans] == ["1/3", "2/3", "3/3"]
    assert sum(len(each.keys()) for each in plans) == 3
    assert {each.run.path for each in plans} == {plans[0].run.path}
    assert counts["verifiers built"] == 1
