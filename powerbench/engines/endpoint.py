"""The engine of models behind an API: it answers requests for whole responses by text, several at once.

No tokens, no cache of prefixes, no uniforms: what a chain may ask of it is less than of the other engines, and
`powerbench.chains.replies` runs the chains that ask no more. A draw is kept on disk by its request and by the
name of its randomness (seed, task, problem, replicate, key): repeated, it is the same, and not paid for again.
"""

from collections.abc import Sequence

from powerbench.engines.base import TextEngine
from powerbench.errors import UserError, require
from powerbench.models import EndpointModel
from powerbench.models.endpoint.endpoint import Asked, Endpoint, Reading
from powerbench.models.endpoint.failures import FailureKind, Unanswered
from powerbench.models.endpoint.replies import Answered, Wanted, asked, read
from powerbench.rng import Stream
from powerbench.types import Draw, Extend, FinishReason, Prompt, Reply, Reported, TopLogprobs


class EndpointEngine(TextEngine):
    """Asks a model's endpoint.

    stop: texts that end a response, beside what ends it for the model itself.
    ranks: whether the log-probabilities of responses are asked for. samplers: those that need none, for the
        error that says that there are none.
    """

    def __init__(
        self,
        model: EndpointModel,
        stop: Sequence[str] = (),
        ranks: bool = False,
        samplers: Sequence[str] = (),
    ) -> None:
        """Raises UserError where the environment has no key, and one is needed."""
        model.require_key()
        self.model, self.workers = model, model.workers
        self._stop, self._ranks = tuple(stop), ranks
        self._remedy = f"choose one that does, or a sampler that needs none: {', '.join(samplers)}"
        reading = Reading(Answered, read, self._has_logprobs, self._remedy, cut_counts=True)
        self._endpoint = Endpoint(model, reading)

    def reply(self, prompt: Prompt, request: Extend, stream: Stream) -> Draw:
        """Raises UserError if the request cannot be answered; CannotAsk if none can."""
        self._require_tau(request.tau)
        # Some servers take 0 for no log-probabilities at all.
        top = max(1, request.top_logprobs) if self._ranks else None
        wanted = Wanted(request.tau, request.until, self._stop, top)
        name = (stream.seed, stream.task, stream.problem, stream.replicate, *request.key)
        question = asked(self.model, prompt, wanted, name)
        try:
            return self._draw(self._endpoint.answer(question))
        except Unanswered as error:
            return self._refused(question, stream.problem, error)

    def progress(self) -> str:
        """What has been asked and spent, in a few words."""
        return self._endpoint.usage.shown(self.model.names.done)

    def close(self) -> None:
        self._endpoint.close()

    def _require_tau(self, tau: float) -> None:
        left_out = "temperature" in self.model.options
        require(
            not left_out or tau == 1,
            f"model.options leaves the temperature out, but this sampler needs temperature {tau:g}: "
            f"with this model, choose a sampler at temperature 1, such as sampler=base",
        )

    def _has_logprobs(self, answer: Answered) -> bool:
        return not self._ranks or bool(answer.logp) or not answer.text

    def _draw(self, answer: Answered) -> Draw:
        tokens = answer.prompt_tokens, answer.completion_tokens
        reported = Reported(
            model=answer.model,
            tokens=answer.completion_tokens,
            reasoning=answer.reasoning,
            reasoning_tokens=answer.reasoning_tokens,
            refusal=answer.refusal,
            dollars=self.model.price(*tokens),
        )
        return Draw(
            tokens=(),
            logp=tuple(answer.logp),
            logq=(),
            entropy=(),
            finish_reason=answer.finish_reason,
            prefilled=answer.prompt_tokens,
            top_logprobs=tuple(TopLogprobs((), tuple(each)) for each in answer.top),
            reply=Reply(answer.text, answer.prompt_tokens, reported),
        )

    def _refused(self, question: Asked, problem: str, error: Unanswered) -> Draw:
        """What stands for a response that the endpoint refuses to give. Raises UserError where it is not the
        response that is refused."""
        url, said = self.model.url, str(error)
        if error.kind is None:
            raise UserError(
                f"the endpoint at {url} gives no log-probabilities: {self._remedy}"
            ) from error
        require(
            error.kind is not FailureKind.TOO_LONG,
            f"problem {problem!r} and a response of {question.longest} tokens are too long for "
            f"{self.model.name} at {url} ({said}): set a smaller max_tokens",
        )
        dollars = self.model.price(0, 0)
        reported = Reported(self.model.id, tokens=0, refusal=said, dollars=dollars)
        return Draw((), (), (), (), FinishReason.REFUSED, reply=Reply("", 0, reported))
