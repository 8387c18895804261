"""A tiny model of words in a folder, as people save theirs."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<s>", "a", "b", "c"]


def save(
    path: Path,
    seed: int = 0,
    spoil: Callable[[LlamaForCausalLM], None] = lambda lm: None,
    **options: object,
) -> None:
    """Weights from a seed, changed by `spoil`. options: of the library's `save_pretrained`."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=0,
        bos_token_id=0,
    )
    lm = LlamaForCausalLM(config)
    with torch.no_grad():
        spoil(lm)
    lm.save_pretrained(path, **options)
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<s>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<s>").save_pretrained(path)
