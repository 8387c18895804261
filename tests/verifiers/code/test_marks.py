"""Marks that end a program on the line of its last statement cost nothing of it.

Run: pytest tests/verifiers/code/test_marks.py
"""

import pytest
from responses import BODY, PROMPT, WHOLE, fenced
from test_extract import defined

from powerbench.verifiers.code.extract import extract

MARKS = [
    *("</s>", "<s>", "<eos>", "<|im_end|>", "<|eot_id|>", "<|im_e", "<|", "</", "</s></s>", "<end_of_turn>"),
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5c", "<fim_middle>", "<!-- end -->", "-->", "|>"),
    *("</code></pre>", "<br />", "</answer>", "[/INST]", "[/CODE]", "[DONE]", "[EOS]", "[END]</s>", "&lt;/s>"),
    *("`", "``", "```", "````</s>", "~~~", "'''", '"""', "\\end{lstlisting}", "\\]", "$$", "\ufffd", "\0"),
    *("\u2028", "\u2029", "\x85", "\xa0", "\u3000", "\u200b", "\x1a", "\u2028</s>", " \u2705", "\u23ce"),
    *(" </s> It's (done", "``` It's (done", "<|im_end|>\n<|im_start|>user\nIt's (", "; </s>", "  # so</s>"),
    *("<|endoftext|>def root(x):\n    return 0.0", "</s>\n\ndef root(x):\n    return 0 +", "'''\nIt is (\n'''"),
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
def test_the_statement_before_a_mark_is_kept(mark: str) -> None:
    for code in (BODY.rstrip(), WHOLE.rstrip()):
        assert defined(extract(PROMPT, "root", code + mark))(4.0) == 2.0
    for text in (fenced(WHOLE.rstrip() + mark), f"```python\n{WHOLE.rstrip()}{mark}"):
        assert defined(extract(PROMPT, "root", text))(4.0) == 2.0


@pytest.mark.parametrize(
    "statement",
    [
        *("return sqrt(x) <", "return sqrt(x) +", "return sqrt(x) <= ", "return sqrt(x) \xa0+ 1 )"),
        *("return sqrt(x) \u2212 1", "return sqrt(x) ? x : 0", "return sqrt(x) +* 2", "return sqrt(x))"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_statement_is_no_mark(statement: str) -> None:
    text = f"    if x < 0:\n        return 0.0\n    {statement}"
    assert defined(extract(PROMPT, "root", text))(4.0) is None


@pytest.mark.parametrize(
    "body",
    [
        "    marks = '</s>', '```', \"<|im_end|>\"\n    return sqrt(x) if '</s>' in marks else 0</s>",
        "    text = '''a</s>\n```\n'''\n    return sqrt(x) * ('</s>' in text)<|im_end|>",
        "    END = 0\n    return [sqrt(x)][END]",
        "    return (\n        sqrt(x)\n    )</s>",
    ],
)
def test_marks_within_the_program_stay(body: str) -> None:
    assert defined(extract(PROMPT, "root", body))(4.0) == 2.0
