"""Stored responses under another model: log-likelihood and entropy of every token, batched and resumable.

Figure 4 of the paper needs them: GRPO's responses under the base model. The prompt is the run's own, in the
other model's tokens. A response keeps its tokens where the other model reads them as the same text;
otherwise its text is tokenised again, without a stop token. The results are in the run folder,
likelihoods/<model>.jsonl, one line a response.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence

from powerbench.errors import require
from powerbench.models.base import Model, Tokenizer
from powerbench.models.token_logprobs import Text, TokenLogprobs
from powerbench.store import Run, records
from powerbench.store.provenance import difference
from powerbench.store.writing import likelihood_writer
from powerbench.types import Likelihood, Problem, Sample, SampleKey


def rescore(run: Run, model: Model, batch: int, device: str) -> int:
    """Score every response that this model has not scored yet; how many that were.

    batch: tokens of prompts and responses in one pass, padding included.
    Raises UserError for what does not fit the model's context, and if another process is at it.
    """
    with likelihood_writer(run, model.name) as write:
        done = {each.key for each in run.likelihoods(model.name)}
        _require_same_model(run, model, scored=bool(done))
        problems, tokenizer = run.problems(), model.tokenizer()
        todo = [s for s in run.stream() if s.key not in done]
        if not todo:
            return 0
        texts = {s.key: _text(s, problems[s.problem], tokenizer) for s in todo}
        for key, text in texts.items():
            length = len(text.prompt) + len(text.response)
            require(
                length <= model.context_length,
                f"problem {key.problem!r}, replicate {key.replicate}: {length} tokens, more than the "
                f"context of {model.name} holds ({model.context_length})",
            )
        scorer = model.scorer(device)
        for some in _batches(todo, texts, batch):
            for sample, scored in zip(some, scorer([texts[s.key] for s in some]), strict=True):
                _require_numbers(sample.key, scored, model.name)
                retokenised = texts[sample.key].response != sample.tokens
                write(Likelihood(*sample.key, retokenised, *scored))
        return len(todo)


def _require_same_model(run: Run, model: Model, scored: bool) -> None:
    """Note beside the likelihoods which model they are of. Raises UserError if those there are of another."""
    note = run.likelihoods_file(model.name).with_suffix(".json")
    here = json.loads(json.dumps(dict(model.identity())))
    if note.exists():
        there = json.loads(note.read_bytes())
        require(
            there == here,
            f"{run.likelihoods_file(model.name)} is of another model of that name "
            f"({'; '.join(difference(there, here))}): set model.name to tell them apart",
        )
    elif not scored:
        records.write_atomic(note, json.dumps(here).encode())


def _require_numbers(key: SampleKey, scored: TokenLogprobs, model: str) -> None:
    require(
        all(map(math.isfinite, (*scored.logp, *scored.entropy))),
        f"{model} gives problem {key.problem!r}, replicate {key.replicate}, likelihoods that are not "
        f"finite: set model.dtype=float32, or see that its weights are whole",
    )


def _text(sample: Sample, problem: Problem, tokenizer: Tokenizer) -> Text:
    same = tokenizer.decode(sample.tokens) == sample.text
    response = sample.tokens if same else tokenizer.continuation(sample.text)
    return Text(tokenizer.encode(problem.prompt), response)


def _batches(
    samples: Sequence[Sample], texts: Mapping[SampleKey, Text], most: int
) -> Iterator[list[Sample]]:
    """Responses of like length together, so that little is padding."""

    def length(sample: Sample) -> int:
        return sum(map(len, texts[sample.key]))

    some: list[Sample] = []
    for sample in sorted(samples, key=length):
        if some and (len(some) + 1) * length(sample) > most:
            yield some
            some = []
        some.append(sample)
    yield some
