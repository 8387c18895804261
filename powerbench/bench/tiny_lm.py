"""A small language model that this repository makes itself, in a minute on a CPU, from its bundled texts.

It has learnt what such texts look like and no mathematics: enough for a run whose responses are of ordinary
lengths and end by themselves.
"""

import argparse
import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config
from transformers.utils import logging

from powerbench.bench.gpu import report

END = "<|end|>"
VOCABULARY = 2048
BATCH, LENGTH = 8, 128

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def texts() -> list[str]:
    """The bundled problems with their solutions."""
    data = files("powerbench.tasks") / "data" / "math_mini.jsonl"
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    return [f"{row['problem']}\n\n{row['solution']}" for row in rows]


def make(folder: Path, seconds: float, steps: int = 10**6) -> int:
    """Train for so long, at most so many steps, and save; returns the steps. One that is there stays: 0."""
    if (folder / "model.safetensors").exists():
        return 0
    logging.disable_progress_bar()
    tokenizer = _tokenizer()
    end: int = tokenizer.convert_tokens_to_ids(END)
    stream = [token for text in texts() for token in (*tokenizer(text).input_ids, end)]
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPE, vocab_size=len(tokenizer), eos_token_id=end, bos_token_id=None)
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-3, weight_decay=0.01)
    until, done = time.perf_counter() + seconds, 0
    for batch in _batches(torch.tensor(stream)):
        lm(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        if done == steps or time.perf_counter() > until:
            break
    tokenizer.save_pretrained(folder)
    lm.eval().save_pretrained(folder)
    return done


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def _batches(stream: torch.Tensor) -> Iterator[torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    while True:
        starts = torch.randint(0, len(stream) - LENGTH, (BATCH,), generator=numbers)
        yield torch.stack([stream[start : start + LENGTH] for start in starts.tolist()])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.tiny_lm", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    steps = make(given.folder, given.seconds)
    report({"steps": steps})


if __name__ == "__main__":
    main()
