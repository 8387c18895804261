"""Preferences: a judge compares a response with the baseline's, as AlpacaEval 2.0 does.

The weighted annotator of Dubois et al. 2024 (arXiv 2404.04475): the judge is shown the instruction and
both outputs under the labels m and M, in an order drawn once for each instruction, and its preference
is the probability that the next token is the response's label, out of the two.
"""

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from powerbench.errors import UserError, require
from powerbench.models.endpoint.budget import Usage
from powerbench.models.endpoint.endpoint import Asked, Endpoint
from powerbench.models.endpoint.failures import CannotAsk, Unanswered
from powerbench.models.endpoint.settings import EndpointSettings, Names
from powerbench.types import Problem, Score
from powerbench.verifiers.common import CannotScore, meta_field
from powerbench.verifiers.judge.answer import READING, Answer
from powerbench.verifiers.judge.prompt import Message, filled, published_prompt

JUDGE = "gpt-4-1106-preview"
"""The judge of AlpacaEval 2.0."""
LABELS = ("m", "M")
"""Of the output shown first, and of the other."""
SAMPLING: Mapping[str, Any] = {
    "max_tokens": 1,
    "temperature": 1,
    "logprobs": True,
    "top_logprobs": 5,
}
"""As in alpaca_eval's weighted_alpaca_eval_gpt4_turbo. The temperature decides which token is drawn,
which nothing reads, and not the log-probabilities."""


def swapped(instruction: str) -> bool:
    """Whether the response is shown first, as m, and the baseline's output second, as M.

    The draw of alpaca_eval 0.6.6, whose seed is 0: one for each instruction, the same for all models.
    """
    draw = random.Random(f"is_switched_outputs{instruction}0")
    return draw.choices([False, True], k=1)[0]


def preference(logprobs: Mapping[str, float], swapped: bool) -> float | None:
    """Probability, in [0, 1], that the response beats the baseline's; None if neither label is there.

    logprobs: of the most likely next tokens, in nats. Only the tokens m and M themselves count, not such
        as have spaces around them; one that is not there has probability 0.

    This is alpaca_eval's preference, which is between 1 and 2, less 1.
    """
    m, M = (logprobs.get(label, -math.inf) for label in LABELS)
    largest = max(m, M)
    if largest == -math.inf:
        return None
    p, P = math.exp(m - largest), math.exp(M - largest)
    return (p if swapped else P) / (p + P)


@dataclass(frozen=True, kw_only=True)
class EndpointJudge(EndpointSettings):
    """The published annotator, with any model behind an OpenAI-compatible endpoint.

    model: as the endpoint knows it; it has to give the log-probabilities of its tokens.
    """

    names: ClassVar[Names] = Names(
        section="verifier",
        model="verifier.model",
        who="the judge",
        doing="judging",
        done="judged",
        units="pairs",
        instead="choose verifier=judge_standin",
    )
    folder_name: ClassVar[str] = "judge"

    model: str = JUDGE
    _prompt: Sequence[Message] = field(init=False, repr=False, compare=False)
    _endpoint: Endpoint[Answer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_key()
        require(bool(self.model), "verifier.model must name a model")
        object.__setattr__(self, "_prompt", published_prompt())
        object.__setattr__(self, "_endpoint", Endpoint(self, READING))

    @property
    def needs(self) -> tuple[str, ...]:
        return ("instruction",)

    @property
    def name(self) -> str:
        """`judge` for AlpacaEval's own; another for each other model: scores of two judges do not mix."""
        if self.model == JUDGE and self.base_url is None:
            return "judge"
        return f"judge_{re.sub('[^A-Za-z0-9._-]+', '-', self.model)}"

    @property
    def usage(self) -> Usage:
        """Requests, tokens and dollars so far."""
        return self._endpoint.usage

    def progress(self) -> str:
        """The usage in a few words, for a progress display."""
        return self.usage.shown(self.names.done)

    def score(self, problem: Problem, text: str) -> Score:
        instruction = meta_field(problem, "instruction", self.name)
        if text == problem.gold:
            same = "the same output as the baseline's: not asked"
            return Score(preference=0.5, answer=text, reason=same, by=self.model)
        switch = swapped(instruction)
        outputs = (text, problem.gold) if switch else (problem.gold, text)
        messages = filled(self._prompt, instruction, *outputs)
        request = {"model": self.model, "messages": messages, **SAMPLING}
        try:
            answer = self._endpoint.answer(Asked(request, longest=SAMPLING["max_tokens"]))
        except Unanswered as error:
            return Score(answer=text, reason=str(error), by=self.model)
        except CannotAsk as error:
            raise CannotScore(str(error)) from error
        value = preference(answer.logprobs, switch)
        if value is None:
            reason = f"neither m nor M among {sorted(answer.logprobs)}"
        else:
            m, M = (math.exp(answer.logprobs.get(label, -math.inf)) for label in LABELS)
            reason = f"P(m)={m:.3f}, P(M)={M:.3f}, the response is {'m' if switch else 'M'}"
        return Score(preference=value, answer=text, reason=reason, by=answer.model)

    def close(self) -> None:
        self._endpoint.close()


# -- a stand-in -----------------------------------------------------------------------------------

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
class StandInJudge:
    """A stand-in for a strong judge: its scores show that the machinery works, no more.

    ask: gives the probabilities (summing to 1) of each option as the model's next token after a
        chat prompt with this text. Every pair is asked about in both orders, and averaged.
    label: who judges, for the record.
    """

    ask: Callable[[str, Sequence[str]], Sequence[float]]
    label: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ("instruction",)

    @property
    def name(self) -> str:
        return "judge_standin"

    @property
    def workers(self) -> int:
        return 1

    def score(self, problem: Problem, text: str) -> Score:
        instruction = meta_field(problem, "instruction", self.name)
        judge = f"stand-in {self.label or ''}".rstrip()
        try:
            first, _ = self.ask(question(instruction, text, problem.gold), LABELS)
            _, second = self.ask(question(instruction, problem.gold, text), LABELS)
        except UserError as error:
            return Score(answer=text, reason=str(error), by=judge)
        return Score(
            preference=(first + second) / 2,
            answer=text,
            reason=f"{first:.2f}/{second:.2f} by order",
            by=judge,
        )

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held: the engine behind `ask` is the runner's."""
