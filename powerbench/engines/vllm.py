"""The vLLM engine: for large runs, and for models over several GPUs (tensor parallel).

vLLM schedules, caches and computes; it does not choose. Its sampler and its random numbers play no part:
a logits processor of ours (`vllm_worker`) inverts the CDF of q at the request's uniforms, as in every
engine, and vLLM takes the token that it is left with. So samples are those of engine=hf up to rounding,
and log p, log q and entropy are exact: float32, over the whole vocabulary.

One call of `step` is one step of vLLM's engine, which runs in this process, the model in a worker process;
requests join and leave at any step. A request that falls below its floor is found by asking the worker after
the step, and aborted:
no token is decoded for nothing, as it would be if the processor had to force a stop token. vLLM's prefix
cache holds what a chain goes on from, in whole blocks (16 tokens on CUDA, 32 on the CPU here): a request
that departs inside a block computes it again. The cache is vLLM's to evict: what a finished request
decoded stays while there is room, withdrawn or not.

Tested with vLLM 0.32 on the CPU; two tensor-parallel ranks were tried there by hand. On CUDA it has not
been run, and differs in this:
- vLLM's second model runner is the default there, and has another interface for logits processors:
  VLLM_USE_V2_MODEL_RUNNER=0 is set here. The first one is on its way out; a later vLLM may lack it.
- Asynchronous scheduling is turned off, so that an abort takes effect before the next token.
- CUDA graphs are captured unless enforce_eager is set; the processor runs outside them.
- Kernels depend on the batch. In bfloat16 a token may now and then depend on what else runs, as a
  uniform falls on the other side of a rounded CDF; VLLM_BATCH_INVARIANT=1 avoids it, at some cost.

Not covered: data parallelism (one process per GPU, each with a shard of the problems, does the same),
pipeline parallelism, speculative decoding. A longrope model (Phi-3.5) uses its long factors for the whole
engine once max_prompt + max_tokens passes its original length; engine=hf decides it chain by chain.
"""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from transformers import AutoConfig

from powerbench.engines.base import EFFICIENT_NUM_SEQS, Finished
from powerbench.errors import UserError, require, require_integer, unknown
from powerbench.models import HubModel
from powerbench.types import Draw, Extend, FinishReason, Key, Tokens

if TYPE_CHECKING:
    from powerbench.engines.vllm_worker import Record

WORKER = "powerbench.engines.vllm_worker"

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: each step is one call
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
"""What vLLM has to find when it is imported."""

ON_CPU = {"block_size": 32, "kv_cache_memory_bytes": 2**32}
"""vLLM's CPU kernels want blocks of a multiple of 32; by default it would take most of the memory."""

_started: dict[str, Any] = {}
"""vLLM's engine by its settings: at most one, see `_start`."""


@dataclass
class EngineRequest:
    """A request at work."""

    chain: int
    key: Key
    context: int
    """Tokens of prompt and prefix."""
    may_fall: bool
    """Whether the request has a floor."""
    cached: int = 0
    """How many of them vLLM found in its cache."""


MAX_NUM_SEQS = {"cpu": 32, "cuda": 256}
"""Requests at once, at most, where `engine.max_num_seqs` is null; those that its cache cannot hold wait."""


class VLLMEngine:
    """Runs up to `max_num_seqs` requests at once; None: as many as suit the device.

    model: loaded here, onto as many GPUs as `tensor_parallel_size` says.
    max_prompt, max_tokens: the longest prompt and response, in tokens, together rounded up to a power of
        two, so that the tasks of a sweep share an engine; longer ones are refused, unless `options` sets a
        larger `max_model_len`.
    gpu_memory_utilization: the share of each GPU's memory that vLLM takes.
    enforce_eager: do without compilation and CUDA graphs.
    options: further arguments of vLLM's EngineArgs, by name.
    """

    def __init__(
        self,
        model: HubModel,
        max_prompt: int,
        max_tokens: int,
        max_num_seqs: int | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if max_num_seqs is not None:
            require_integer("engine.max_num_seqs", max_num_seqs, 1)
        require_integer("engine.tensor_parallel_size", tensor_parallel_size, 1)
        os.environ.update(ENVIRONMENT)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            from vllm import EngineArgs
            from vllm.platforms import current_platform
        except ImportError as error:
            raise UserError(
                f"engine=vllm cannot import vLLM ({error}); run `pip install 'powerbench[vllm]'`, or "
                f"`make test-vllm`, which makes an environment with vLLM for the CPU"
            ) from error
        on_cpu = current_platform.is_cpu()
        device = "cpu" if on_cpu else "cuda"
        max_num_seqs = max_num_seqs or MAX_NUM_SEQS[device]
        settings = {
            "model": model.location,
            "revision": _revision(model),
            "dtype": _dtype(model),
            "skip_tokenizer_init": True,  # token ids in and out
            "generation_config": "vllm",  # nothing is read from the checkpoint's
            "max_model_len": _max_model_len(model, max_prompt + max_tokens),
            "max_num_seqs": max_num_seqs,
            "tensor_parallel_size": tensor_parallel_size,
            "distributed_executor_backend": "mp",  # the model's memory goes with the worker's process
            "gpu_memory_utilization": gpu_memory_utilization,
            "enforce_eager": enforce_eager,
            "enable_prefix_caching": True,
            "async_scheduling": False,
            "logits_processors": [f"{WORKER}:InverseCDF"],
            "worker_extension_cls": f"{WORKER}.Access",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **(ON_CPU if on_cpu else {}),
            **(options or {}),
        }
        names = [field.name for field in fields(EngineArgs)]
        for name in options or {}:
            if name not in names:
                raise unknown("setting", f"engine.options.{name}", names)
        self.llm = _start(settings)
        self.max_num_seqs = max_num_seqs
        self.efficient_num_seqs = min(max_num_seqs, EFFICIENT_NUM_SEQS[device])
        self.vocabulary = self.llm.model_config.get_vocab_size()
        self.longest = self.llm.model_config.max_model_len
        self.requests: dict[str, EngineRequest] = {}  # by vLLM's name for the request

    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        from powerbench.engines.vllm_worker import ORDER, Order

        require(request.until > request.keep, f"nothing to decode: until={request.until}")
        needed = len(prompt) + request.until
        require(
            needed <= self.longest,
            f"engine=vllm was started for {self.longest} tokens, prompt and response together, and "
            f"{needed} are asked for; set +engine.options.max_model_len={needed} or more",
        )
        name, context = uuid4().hex, [*prompt, *request.prefix]
        order = Order(
            name=name,
            uniforms=uniforms[request.keep : request.until].tolist(),
            tau=request.tau,
            top_k=request.top_k or 0,
            support=request.support,
            alpha=request.alpha,
            floor=request.floor,
            top_logprobs=request.top_logprobs,
            exponents=request.exponents,
        )
        params = SamplingParams(
            temperature=0.0,
            max_tokens=request.until - request.keep,
            stop_token_ids=[token for token in request.stop_tokens if token < self.vocabulary],
            ignore_eos=True,  # the request's own stop tokens are all that count
            detokenize=False,
            stream_interval=needed,  # report the first token and the end, nothing in between
            extra_args={ORDER: order},
            skip_clone=True,
        )
        self.requests[name] = EngineRequest(
            chain, request.key, len(context), request.floor > float("-inf")
        )
        self.llm.add_request(name, tokens_input(context), params)

    def step(self) -> list[Finished]:
        if not self.requests:
            return []
        finish_reason: dict[str, FinishReason] = {}
        with _failures_in_one_line():
            outputs = self.llm.step()
        for output in outputs:
            self.requests[output.request_id].cached = output.num_cached_tokens or 0
            if output.finished:
                finish_reason[output.request_id] = FinishReason(output.outputs[0].finish_reason)
        if any(request.may_fall for request in self.requests.values()):
            fallen = self._ask("powerbench_fallen")
            self.llm.abort_request([name for name in fallen if name not in finish_reason])
            finish_reason |= dict.fromkeys(fallen, FinishReason.FLOOR)
        if not finish_reason:
            return []
        records = self._ask("powerbench_take", list(finish_reason))
        return [self._finish(name, records[name], reason) for name, reason in finish_reason.items()]

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        requests = self.requests.items()
        names = [n for n, each in requests if each.chain == chain and key in (None, each.key)]
        if not names:
            return 0
        self.llm.abort_request(names)
        for name in names:
            del self.requests[name]
        return sum(len(each.tokens) for each in self._ask("powerbench_take", names).values())

    def _finish(self, name: str, record: "Record", finish_reason: FinishReason) -> Finished:
        request = self.requests.pop(name)
        prefilled = request.context - 1 - request.cached
        draw = Draw(
            *record[:-2],
            finish_reason,
            prefilled,
            top_logprobs=record.top_logprobs,
            log_normalisers=record.log_normalisers,
        )
        return Finished(request.chain, request.key, draw)

    def _ask(self, method: str, *arguments: Any) -> Any:
        """A worker method's answer. All tensor-parallel ranks know the same; the last one's is taken."""
        with _failures_in_one_line():
            return self.llm.collective_rpc(method, args=arguments)[-1]


def _start(settings: Mapping[str, Any]) -> Any:
    """vLLM's own engine, with its model loaded.

    One is kept, and the runs of a sweep in one process share it if their settings agree. Another one is
    started only after it is shut down and forgotten: both would hold the GPU's memory, and whichever went
    first would take the process groups of the other with it.
    """
    from vllm import EngineArgs, LLMEngine

    wanted = repr(settings)
    if wanted not in _started:
        _stop()
        try:
            _started[wanted] = LLMEngine.from_engine_args(EngineArgs(**settings))
        except (
            Exception
        ) as error:  # of any kind: what fails in the worker comes as a bare Exception
            raise _failed(error) from error
    return _started[wanted]


def _stop() -> None:
    """Shut down the engine that is kept, and forget it: vLLM may hold memory while anything refers to it."""
    while _started:
        _, llm = _started.popitem()
        llm.engine_core.shutdown()
        del llm
    gc.collect()


@contextmanager
def _failures_in_one_line() -> Iterator[None]:
    """Report a worker's failure, such as exhausted memory, in one line; the next run starts another engine."""
    try:
        yield
    except RuntimeError as error:
        with suppress(Exception):  # it may be gone already
            _stop()
        raise _failed(error) from error


def _failed(error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    remedy = ""
    if "out of memory" in reason or ("memory" in reason and "less than desired" in reason):
        remedy = " [set a smaller engine.gpu_memory_utilization or engine.max_num_seqs]"
    return UserError(f"engine=vllm: {reason}{remedy}")


def _max_model_len(model: HubModel, needed: int) -> int:
    """Tokens of prompt and response to start the engine for: one number for all tasks of a model.

    A power of two, but not beyond the model's context, nor beyond the original length of a longrope model
    (Phi-3.5), whose long factors would then be used throughout.
    """
    config = _config(model)
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or model.context_length
    longest = min(1 << (needed - 1).bit_length(), model.context_length)
    return max(needed, min(longest, original) if needed <= original else longest)


def _config(model: HubModel) -> Any:
    config = AutoConfig.from_pretrained(model.location, revision=_revision(model))
    return config.get_text_config()


def _revision(model: HubModel) -> str | None:
    return model.revision if model.gguf is None else None


def _dtype(model: HubModel) -> str:
    """The checkpoint's for "auto", as in engine=hf: vLLM's own "auto" makes half of float32."""
    if model.dtype != "auto":
        return model.dtype
    return str(_config(model).dtype or "auto").removeprefix("torch.")
