"""Preferences: a judge compares a response with the baseline's, as AlpacaEval 2.0 does.

The judge is shown the instruction and both outputs under the labels m and M, and its preference is
the probability that the next token is the candidate's label, out of the two (the weighted annotator
of Dubois et al. 2024, arXiv 2404.04475; the wording of the prompt is ours).
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from powerbench.errors import UserError, require
from powerbench.rng import Stream
from powerbench.types import Problem, Score
from powerbench.verifiers.common import asked

if TYPE_CHECKING:
    from openai import OpenAI

LABELS = ("m", "M")
SYSTEM = (
    "You compare the outputs of two language models for the same instruction, and say which one "
    "people would prefer. You answer with the label of that output, and nothing else."
)
QUESTION = """\
Two models, m and M, were given the instruction below. Which output would most people prefer? \
Consider whether it does what was asked, whether it is right, and whether it is clear; \
neither the order of the outputs nor their length alone should matter.

<instruction>
{instruction}
</instruction>

<output model="m">
{first}
</output>

<output model="M">
{second}
</output>

Answer with one letter, m or M: the model whose output is better."""


def question(instruction: str, first: str, second: str) -> str:
    """What the judge is asked, the first output under the label m and the second under M."""
    return QUESTION.format(instruction=instruction, first=first, second=second)


@dataclass(frozen=True)
class EndpointJudge:
    """A judge behind an OpenAI-compatible endpoint that gives the log-probabilities of its tokens.

    base_url: None for OpenAI's own.
    key_env: the environment variable that holds the key; None for an endpoint that needs no key.
    seed: decides, instruction by instruction, which output is shown first.
    timeout: seconds for one request. retries: how often a request that failed is sent again.
    """

    name: str = "judge"
    model: str = "gpt-4-1106-preview"
    base_url: str | None = None
    key_env: str | None = "OPENAI_API_KEY"
    seed: int = 0
    timeout: float = 60.0
    retries: int = 5

    def __post_init__(self) -> None:
        require(self.timeout > 0, f"verifier.timeout must be > 0 seconds, got {self.timeout}")
        require(self.retries >= 0, f"verifier.retries must be >= 0, got {self.retries}")
        require(
            self.key_env is None or bool(os.environ.get(self.key_env)),
            f"verifier.key_env: the environment variable {self.key_env} is not set; set it to the "
            f"endpoint's key, or choose verifier=judge_standin",
        )

    def score(self, problem: Problem, text: str) -> Score:
        from openai import OpenAIError

        instruction = asked(problem, "instruction", self.name)
        swapped = self._swapped(instruction)
        outputs = (problem.gold, text) if swapped else (text, problem.gold)
        try:
            likely = self._next_tokens(question(instruction, *outputs))
        except OpenAIError as error:
            return Score(extracted=text, reason=_one_line(error))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            return Score(extracted=text, reason=f"no log-probabilities: {_one_line(error)}")
        m, M = (likely.get(label, 0.0) for label in LABELS)
        if m + M == 0:
            return Score(extracted=text, reason=f"neither m nor M among {sorted(likely)}")
        preference = (M if swapped else m) / (m + M)
        return Score(preference=preference, extracted=text, reason=f"P(m)={m:.3f}, P(M)={M:.3f}")

    def close(self) -> None:
        client = vars(self).pop("_client", None)
        if client is not None:
            client.close()

    def _swapped(self, instruction: str) -> bool:
        """Whether the baseline's output is shown first."""
        stream = Stream(self.seed, task="judge", problem=instruction, replicate=0)
        return bool(stream.uniforms(("order",), 1)[0] < 0.5)

    def _next_tokens(self, text: str) -> Mapping[str, float]:
        """The probabilities of the likeliest next tokens, surrounding spaces left out."""
        answer = self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
            temperature=0,
            max_tokens=1,
            logprobs=True,
            top_logprobs=5,
        )
        logprobs = answer.choices[0].logprobs
        content = logprobs.content if logprobs else None
        if not content:
            raise ValueError("the endpoint gave none")
        likely: dict[str, float] = {}
        for token in content[0].top_logprobs:
            label = token.token.strip()
            likely[label] = likely.get(label, 0.0) + math.exp(token.logprob)
        return likely

    @cached_property
    def _client(self) -> "OpenAI":
        from openai import OpenAI  # slow to import

        key = os.environ[self.key_env] if self.key_env else "none"
        return OpenAI(
            api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=self.retries
        )


@dataclass(frozen=True)
class StandInJudge:
    """A judge at hand in place of a strong one: its verdicts show that the machinery works, no more.

    ask: gives the probabilities (summing to 1) of each option as the model's next token after a
        chat prompt with this text. Every pair is asked about in both orders, and averaged.
    label: who judges, for the record.
    """

    ask: Callable[[str, Sequence[str]], Sequence[float]]
    name: str = "judge_standin"
    label: str | None = None

    def score(self, problem: Problem, text: str) -> Score:
        instruction = asked(problem, "instruction", self.name)
        try:
            first, _ = self.ask(question(instruction, text, problem.gold), LABELS)
            _, second = self.ask(question(instruction, problem.gold, text), LABELS)
        except UserError as error:
            return Score(extracted=text, reason=str(error))
        judge = f"stand-in judge {self.label or ''}".rstrip()
        return Score(
            preference=(first + second) / 2,
            extracted=text,
            reason=f"{judge}, {first:.2f}/{second:.2f} by order",
        )

    def close(self) -> None:
        """Nothing is held: the engine behind `ask` is the runner's."""


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
