"""Hugging Face's tokenizers, as the rest of the program uses them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from powerbench.errors import UserError, first_line, require
from powerbench.types import Message, Prompt, Tokens

LINE_FEED = re.compile("\n|Ċ|<0x0A>")
"""A line feed as vocabularies spell it: as it is, as GPT-2's bytes, and as a byte of SentencePiece."""


@dataclass(frozen=True)
class HFTokenizer:
    """The engine's Tokenizer over Hugging Face's."""

    tokenizer: Any
    stop_tokens: Tokens
    model: str

    @property
    def eos(self) -> int:
        return self.tokenizer.eos_token_id

    def encode(self, prompt: Prompt) -> Tokens:
        """Raw text as the tokenizer takes it; a chat prompt as one user turn, answer to follow.

        Raises UserError for a chat prompt where the model has no chat template.
        """
        if not prompt.chat:
            return tuple(self.tokenizer(prompt.text).input_ids)
        require(
            bool(self.tokenizer.chat_template),
            f"model {self.model!r} has no chat template; set `task.chat=never` and a raw prompt style",
        )
        return self.chat([Message("user", prompt.text)])

    def chat(self, messages: Sequence[Message]) -> Tokens:
        require(
            bool(self.tokenizer.chat_template),
            f"model {self.model!r} has no chat template; ask it for completions of raw text",
        )
        turns = [{"role": each.role, "content": each.text} for each in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:  # such as of one that knows no system message
            raise UserError(
                f"the chat template of model {self.model!r} refuses the conversation: {first_line(error)}"
            ) from error
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def continuation(self, text: str) -> Tokens:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def token(self, text: str) -> int:
        tokens = self.continuation(text)
        require(len(tokens) == 1, f"{text!r} is {len(tokens)} tokens of {self.model!r}, not one")
        return tokens[0]

    def line_ends(self) -> Tokens:
        likely = (i for token, i in self.tokenizer.get_vocab().items() if LINE_FEED.search(token))
        return tuple(sorted(i for i in likely if "\n" in self.tokenizer.decode([i])))

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)
