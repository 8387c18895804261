"""Stored responses under another model: log-likelihood and entropy of every token, batched and resumable.

Figure 4 of the paper needs them: GRPO's responses under the base model. The prompt is the run's own, in the
other model's tokens. A response keeps its tokens where the other model reads them as the same text;
otherwise its text is tokenised again, without a stop token. The results are in the run folder,
likelihoods/<model>.jsonl, one line a response.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from powerbench.errors import require
from powerbench.models import HubModel, TabularModel
from powerbench.models.base import Model, Tokenizer
from powerbench.store import Run, records
from powerbench.store.lease import LEASE_TIMEOUT, leased
from powerbench.store.records import Tell
from powerbench.types import Likelihood, Problem, Sample, SampleKey, Tokens

CHUNK = 256
"""Positions whose logits are held at once: a vocabulary of 150,000 makes 0.15 GiB of them."""


class Scored(NamedTuple):
    """What a model says of a response: both [tokens]."""

    logp: tuple[float, ...]
    entropy: tuple[float, ...]


class Text(NamedTuple):
    """A prompt and a response in a model's tokens."""

    prompt: Tokens
    response: Tokens


def rescore(run: Run, model: Model, batch: int, device: str, tell: Tell) -> int:
    """Score every response that this model has not scored yet; how many that were.

    batch: tokens of prompts and responses in one pass, padding included.
    Raises UserError for what does not fit the model's context, and if another process is at it.
    """
    path = run.likelihoods_file(model.name)
    path.parent.mkdir(exist_ok=True)
    name = f"likelihoods-{path.stem}"
    with (
        leased(run.path, name, str(path), tell, LEASE_TIMEOUT) as held,
        records.appending(path, tell, held.require_held) as file,
    ):
        done = {SampleKey(each.problem, each.replicate) for each in run.likelihoods(model.name)}
        problems, tokenizer = run.problems(), model.tokenizer()
        todo = [s for s in run.stream() if _key(s) not in done]
        if not todo:
            return 0
        texts = {_key(s): _text(s, problems[s.problem], tokenizer) for s in todo}
        for key, text in texts.items():
            length = len(text.prompt) + len(text.response)
            require(
                length <= model.context_length,
                f"problem {key.problem!r}, replicate {key.replicate}: {length} tokens, more than the "
                f"context of {model.name} holds ({model.context_length})",
            )
        scorer = _scorer(model, device)
        for some in _batches(todo, texts, batch):
            for sample, scored in zip(some, scorer([texts[_key(s)] for s in some]), strict=True):
                retokenised = texts[_key(sample)].response != sample.tokens
                file.write(Likelihood(*_key(sample), retokenised, *scored))
        return len(todo)


def _key(sample: Sample) -> SampleKey:
    return SampleKey(sample.problem, sample.replicate)


def _text(sample: Sample, problem: Problem, tokenizer: Tokenizer) -> Text:
    same = tokenizer.decode(sample.tokens) == sample.text
    response = sample.tokens if same else tokenizer.continuation(sample.text)
    return Text(tokenizer.encode(problem.prompt), response)


def _batches(
    samples: Sequence[Sample], texts: Mapping[SampleKey, Text], most: int
) -> Iterator[list[Sample]]:
    """Responses of like length together, so that little is padding."""

    def length(sample: Sample) -> int:
        return sum(map(len, texts[_key(sample)]))

    some: list[Sample] = []
    for sample in sorted(samples, key=length):
        if some and (len(some) + 1) * length(sample) > most:
            yield some
            some = []
        some.append(sample)
    yield some


# -- models ---------------------------------------------------------------------------------------


def _scorer(model: Any, device: str) -> Callable[[Sequence[Text]], list[Scored]]:
    """Scores a batch of texts."""
    if isinstance(model, TabularModel):
        return lambda texts: [_tabular(model, text) for text in texts]
    require(isinstance(model, HubModel), f"model {model.name!r} cannot score a given text")
    lm = model.load(device, "sdpa")
    config = lm.config.get_text_config()
    for setting in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        require(
            getattr(config, setting, None) in (None, 1, 1.0),
            f"model {model.name!r} changes its logits after the last layer ({setting}), which is not covered",
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":  # its factors follow the longest text of a pass
        return lambda texts: [score_texts(lm, [text])[0] for text in texts]
    return lambda texts: score_texts(lm, texts)


def _tabular(model: TabularModel, text: Text) -> Scored:
    rows = [model.p(text.prompt + text.response[:i]) for i in range(len(text.response))]
    p = torch.tensor(np.array(rows)).reshape(-1, model.vocabulary)
    return _gathered(p.log(), torch.tensor(text.response, dtype=torch.long))


@torch.inference_mode()
def score_texts(lm: PreTrainedModel, texts: Sequence[Text]) -> list[Scored]:
    """One padded pass over a batch; logits in float32, a few positions at a time."""
    longest = max(len(t.prompt) + len(t.response) for t in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        whole = torch.tensor(text.prompt + text.response, dtype=torch.long)
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
    passed = lm.base_model(input_ids=ids.to(lm.device), attention_mask=mask.to(lm.device))
    hidden, head = passed.last_hidden_state, lm.get_output_embeddings()
    scored = []
    for row, text in enumerate(texts):
        first = len(text.prompt) - 1  # the position that predicts the response's first token
        of_response = hidden[row, first : first + len(text.response)]
        tokens = torch.tensor(text.response, dtype=torch.long, device=lm.device)
        parts = [
            _gathered(
                head(of_response[i : i + CHUNK]).float().log_softmax(-1), tokens[i : i + CHUNK]
            )
            for i in range(0, len(tokens), CHUNK)
        ]
        scored.append(Scored(sum((p.logp for p in parts), ()), sum((p.entropy for p in parts), ())))
    return scored


def _gathered(logp: torch.Tensor, tokens: torch.Tensor) -> Scored:
    """logp: [positions, vocabulary]; tokens: [positions]."""
    entropy = -(logp.exp() * logp).sum(-1)
    return Scored(tuple(logp.gather(-1, tokens[:, None])[:, 0].tolist()), tuple(entropy.tolist()))
