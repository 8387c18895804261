"""The prompt of AlpacaEval 2.0's weighted annotator, read from the installed package `alpaca_eval`."""

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from powerbench.errors import UserError, require

PROMPT = Path("evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt")
"""Where the package keeps it: a chat in ChatML with the places to fill in."""
SHA256 = "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62"
"""Of that file in alpaca_eval 0.6.6, which holds the prompt behind the published annotations."""
INSTALL = "pip install --no-deps alpaca-eval==0.6.6"

TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
PLACE = re.compile(r"\{(instruction|output_1|output_2)\}")


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


def published_prompt() -> tuple[Message, ...]:
    """The turns of the prompt, with `{instruction}`, `{output_1}` and `{output_2}` to be filled in.

    Raises UserError if the package is missing, or holds another prompt.
    """
    spec = importlib.util.find_spec("alpaca_eval")  # importing it would need what it depends on
    if spec is None or spec.origin is None:
        raise UserError(
            f"verifier=judge asks with the prompt of the package alpaca_eval, which is not "
            f"installed: {INSTALL}"
        )
    file = Path(spec.origin).parent / PROMPT
    content = file.read_bytes() if file.is_file() else b""
    require(
        hashlib.sha256(content).hexdigest() == SHA256,
        f"{file} is not the published prompt (another sha256): {INSTALL}",
    )
    return tuple(Message(role, text.strip()) for role, text in TURN.findall(content.decode()))


def filled(
    prompt: Sequence[Message], instruction: str, output_1: str, output_2: str
) -> list[dict[str, str]]:
    """The chat that asks about one pair, as plain data.

    The turns are split before the texts are put in, all at once: no text can end its turn or be
    taken for a place to fill in. In alpaca_eval 0.6.6 it can: the texts go in one after the other
    and before the split, so that an output with `<|im_end|>` cuts the question off, and an
    instruction with `{output_1}` swallows that output. For all other texts the chats are equal.
    Half of a surrogate pair, which cannot be sent, becomes a question mark.
    """
    texts = {"instruction": instruction, "output_1": output_1, "output_2": output_2}
    contents = [PLACE.sub(lambda place: texts[place[1]], turn.content) for turn in prompt]
    return [
        {"role": turn.role, "content": content.encode(errors="replace").decode()}
        for turn, content in zip(prompt, contents, strict=True)
    ]
