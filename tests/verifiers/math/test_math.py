r"""The math verifier: which box is read, what counts as equal, and that nothing makes it hang.

Run: pytest tests/verifiers/math/test_math.py
"""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.types import Problem, Prompt, Score
from powerbench.verifiers.boxed import answer_box, answer_boxes, last_boxed
from powerbench.verifiers.boxed_official import NO_VALUES, official_box
from powerbench.verifiers.math import MathVerifier, graders

PAIRS = Path(__file__).parents[4] / "shared/data/math_answers.jsonl"
OFFICIAL = pytest.mark.skipif(
    find_spec("tinker_cookbook") is None or find_spec("pylatexenc") is None,
    reason="the official grader (tinker-cookbook, pylatexenc) is not installed",
)


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    verifier = MathVerifier(workers=2)
    yield verifier
    verifier.close()


@pytest.fixture(scope="module")
def official() -> Iterator[MathVerifier]:
    verifier = MathVerifier(mode="official", workers=2)
    yield verifier
    verifier.close()


def judge(verifier: MathVerifier, gold: str, answer: str) -> Score:
    text = rf"We see that the answer is $\boxed{{{answer}}}$. Done."
    return verifier.score(Problem("1", Prompt(""), gold, {"subject": "Algebra"}), text)


def test_an_answer_that_was_read_is_graded_as_its_response_is(verifier: MathVerifier) -> None:
    problem = Problem("1", Prompt(""), r"\frac12", {"subject": "Algebra"})
    for text in (r"\boxed{0.50}", r"\boxed{1}, so \boxed{2}", r"$x = \boxed{1/2}$", "0.5"):
        said, score = verifier.read(text), verifier.score(problem, text)
        assert said == score.answer
        assert said is None or verifier.grade(problem, said) == score


# -- the box --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{1} and then \fbox{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"so \fbox{7}.", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{3} is not \boxed{4", "3"),
        (r"a stray { and \boxed{5} and a stray }", "5"),
        (r"\boxed{\boxed{6}}", "6"),
        (r"\boxed{5\\}", "5\\\\"),
        (r"\boxed{}", ""),
        (r"\boxed 5", None),
        (r"\boxed{8", None),
        (r"\boxedd{8}", None),
        ("the answer is 9", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_read(text: str, content: str | None) -> None:
    assert last_boxed(text) == answer_box(text) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and $\boxed{2}$", "1, 2"),
        (r"$x = \boxed{1}$, $y = \boxed{2}$", "1, 2"),
        (r"\boxed{1} or \boxed{2}", "1 or 2"),
        (r"\boxed{1}, \boxed{2}, \text{ and } \boxed{3}", "1, 2, 3"),
        (r"\boxed{1}, or \boxed{2}", "2"),
        (r"\boxed{1}, so \boxed{2}", "2"),
        (r"\boxed{1}, \boxed{1}", "1"),
        (r"\boxed{7}, as asked in a \boxed{}.", "7"),
        (r"\boxed{7} \boxed{\text{your answer}} \boxed{...}", "7"),
        (r"\boxed{7} \boxed{\{\}}", r"\{\}"),
        (r"\boxed{}", ""),
        (r"\\boxed{\\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\\\boxed{5\\}", "5\\\\"),
        (r"\boxed{8", None),
    ],
)
def test_the_boxes_that_hold_the_answer_are_read(text: str, content: str | None) -> None:
    assert answer_boxes(text) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"a stray { and \boxed{5} and a stray }", "5"),
        (r"\boxed{\boxed{6}}", "6"),
        (r"\boxed{5, or \fbox{6}}", r"5, or \fbox{6}"),
        (r"\boxed{7}, as asked in a \boxed{your answer}", "your answer"),
        (r"$\\boxed{8}$", "8"),
        # what another reader would see an answer in
        (r"\fbox{5}", None),
        (r"\boxed {5}", None),
        (r"\boxed{3} is not \boxed{4", None),
        (r"\boxed{3}, in a \boxed", None),
        (r"\boxed{3}, not \boxedd{4}", None),
        (r"\boxed{3} and then \fbox{4}", "3"),
        (r"\boxed{\left\{ 1 \right.}", None),
        (r"\boxed{\left\{ 1 \right.} }", r"\left\{ 1 \right.} "),
        (r"\boxed{}", None),
        (r"\boxed{None}", None),
        (r"\boxed{NA}", None),
        (r"\boxed{none}", "none"),
        (r"\boxed{ NA}", " NA"),
        (r"\boxed 5", None),
        ("the answer is 9", None),
        ("boxed{9}", None),
        ("", None),
    ],
)
def test_the_official_code_reads_the_last_box_or_none(text: str, content: str | None) -> None:
    assert official_box(text) == content


def test_what_a_csv_file_holds_no_value_for_is_no_answer() -> None:
    """As pandas itself reads it back, which the official code grades from."""
    pandas = pytest.importorskip("pandas")
    words = [*sorted(NO_VALUES), "none", "Null", " NA", "-", "0", r"\text{None}"]
    frame = pandas.DataFrame({"answer": words, "of": "a column of text"})
    read = pandas.read_csv(io.StringIO(frame.to_csv(index=False)))["answer"]
    assert [pandas.isna(value) for value in read] == [word in NO_VALUES for word in words]


@OFFICIAL
@pytest.mark.parametrize(("text", "correct"), [(r"\boxed{5}", True), (r"\fbox{5}", False)])
def test_official_mode_reads_by_the_official_rule(
    official: MathVerifier, verifier: MathVerifier, text: str, correct: bool
) -> None:
    problem = Problem("1", Prompt(""), "5", {"subject": "Algebra"})
    assert official.score(problem, text).correct is correct
    assert verifier.score(problem, text).correct is True


def test_without_a_box_the_response_is_wrong(verifier: MathVerifier) -> None:
    score = verifier.score(Problem("1", Prompt(""), "5", {"subject": "Algebra"}), "It is 5.")
    assert score == Score(correct=False, reason="no boxed answer", by="text")


# -- what a careful reader says -------------------------------------------------------------------

SAME = {
    "5": (
        r"5.|5,|5;| 5 |{5}|(5)|$5$|$$5$$|\(5\)|\[5\]|\,5\;|5~|5\quad|5\\|5\\ |5\ |**5**|'5'|+5|5.0|5.00"
        r"|\mathbf{5}|\boldsymbol{5}|\mathrm{5}|\text{5}|\textbf{5}|\bf 5|\underline{5}|\color{red}5"
        r"|\displaystyle 5|\textcolor{red}{5}|x=5|x = 5|x=y=5|f(x)=5|\theta=5|\overline{AB} = 5"
        r"|\angle A = 5|5=5|2+3=5|\frac{10}{2}=5|10-5|\frac{5}{1}|\frac51|5^1|2+3|\sqrt{25}|2\frac{12}{4}"
        r"|\text{answer} = 5|\text{The answer is } 5|\text{Answer: }5|\approx 5|\text{about } 5|2^2+1"
        r"|5\text{ cm}|5\,\mathrm{cm}|5 cm|5cm|5\text{ cm}^2|5\text{ apples}|5 \text{ units}|5 hours"
        r"|5^\circ|5^{\circ}|5°|5\degree|5\text{ degrees}|5\%|5%|5 percent|\$5|\$5.00|5\text{ dollars}"
        r"|5\text{ (since } 2+3=5)|5 \text{ (since 2+3=5)}|5\text{, because it is prime}"
        r"|5\text{ (exactly)}|5 \text{ cm/s}|\lfloor 5.7 \rfloor|--5|\binom{5}{1}|{5 \choose 4}|5(1)"
    ),
    "-3": "−3|–3|- 3|-3.0",
    "0.5": r".5|1/2|\frac12|\frac{1}{2}|\tfrac12|\dfrac{1}{2}|1 \over 2|1\div 2|½|\frac{-1}{-2}|50\%",
    ".0000672": r"0.0000672|6.72 \times 10^{-5}|6.72\times10^-5|6.72e-5",
    "1000": r"1,000|1{,}000|1{,}\!000|1,\!000|1\,000|1\;000|1 000|10^3|10^{3}|1{,}000\text{ cm}|\$1,000",
    "11,\\! 111,\\! 111,\\! 100": r"11111111100|11,111,111,100",
    "6290000": r"6.29\times 10^6|6.29 \cdot 10^{6}|6.29\text{ million}",
    r"\frac{9}{1}": r"9|\frac91|\frac 9 1|9/1",
    r"\frac{1}{3}": r"0.\overline{3}|0.\bar{3}|\frac13|\frac{2}{6}|33\frac13\%",
    r"0.1\overline{6}": r"\frac16",
    r"1\frac{1}{2}": r"\frac{3}{2}|1.5|1 1/2|1\tfrac12|1 \frac12",
    r"-1\frac{1}{2}": r"-\frac{3}{2}|-1.5",
    r"2\pi": r"\pi\cdot 2|2π|2pi|\pi+\pi",
    r"2\sqrt{5}": r"\sqrt{20}|2\sqrt5|2 \cdot \sqrt{5}|2√5|2sqrt(5)|2\times 5^{0.5}|2\cdot5^{1/2}",
    r"\frac{1}{\sqrt{2}}": r"\frac{\sqrt{2}}{2}|2^{-1/2}",
    r"\$18.90": r"18.9|18.90|\$18.9|18.90\text{ dollars}",
    r"10\%": r"10|0.1|\frac{1}{10}|10\text{ percent}",
    r"90^\circ": r"90|90\text{ degrees}|90^\circ.|90^\circ\text{C}|90^\circ C",
    r"\sin 30^\circ": r"\frac12|0.5",
    r"15\mbox{ cm}^2": (
        r"15|15\text{ cm}^2|15\text{ cm}^{2}|15\,\text{cm}^2|15\ \mathrm{cm}^2|15 cm^2|15\text{ cm$^2$}"
        r"|15\text{ cm²}|15\text{ square centimeters}|15\text{ sq. cm}|15\text{ centimetres squared}"
    ),
    r"864 \mbox{ inches}^2": r"864|864\text{ in}^2|864\text{ square inches}|864\text{ in.}^2",
    r"5\text{ m/s}": r"5|5\text{ meters per second}|5\,\text{m}/\text{s}",
    r"5.4 \text{ cents}": r"5.4|5.4¢|5.4\text{ cents each}",
    r"4:30 \text{ p.m.}": r"4:30|4:30\text{ pm}|4{:}30\text{ PM}",
    "3:4": r"6:8|\frac34",
    r"\text{(A)}": r"A|(A)|a|\text{A}|\textbf{(A)}|\mathrm{(A)}|\text{(A)}.",
    r"\text{even}": r"even|Even|\text{Even}|\mathbf{even}|x=\text{even}|\text{even}.",
    r"\text{Evelyn}": r"Evelyn|\mathrm{Evelyn}|\text{EVELYN}",
    r"\text{June 20}": r"June 20",
    r"\emptyset": r"\varnothing|\{\}",
    "x=3": r"3|3=x|\text{3}",
    "y = 2x + 3": r"2x+3|y=3+2x|y-2x=3|2x+3=y",
    "5x - 7y + 11z + 4 = 0": r"5x - 7y + 11z = -4|10x-14y+22z+8=0|-5x + 7y - 11z - 4 = 0",
    "p - q": "p-q|-q+p",
    "2k+2": "2(k+1)|2\\cdot(k+1)|2+2k",
    r"\frac{11+9a}{20}": r"\frac{9a+11}{20}|\frac{11}{20}+\frac{9a}{20}|(11+9a)/20",
    r"\cot x": r"\cot(x)|\frac{\cos x}{\sin x}|\frac{1}{\tan x}",
    "6+9i": r"9i+6|6+9\mathrm{i}|6 + 9 i|3(2+3i)",
    "-1": "i^2",
    r"x \equiv 3 \pmod{5}": r"x\equiv3\pmod5",
    "(1,2)": r"(1, 2)|\left(1,2\right)|\bigl(1,2\bigr)|(x,y)=(1,2)|(1.0,\frac42)",
    "[1,2]": r"x\in[1,2]|1\le x\le 2",
    r"x \in [-2,7]": r"[-2,7]|-2\leq x\leq 7",
    "1,-2": r"-2,1|{1,-2}|\{1,-2\}|-2 \text{ and } 1|1 and -2|x=1,-2|x=1, x=-2|x = 1 \text{ or } x = -2|1;-2",
    r"\{1,2\}": r"1,2|\{2, 1\}|\left\{ 1,2\right\}",
    "(1,2),(3,4)": r"(3,4),(1,2)|\{(1,2),(3,4)\}|(1,2) \text{ and } (3,4)",
    r"(2,\infty)": r"(2, +\infty)|x>2|2<x",
    r"x>2": r"(2,\infty)",
    r"(-\infty, 2) \cup (3, \infty)": (
        r"(3,\infty)\cup(-\infty,2)|(-\infty,2)U(3,\infty)|x<2 \text{ or } x>3|(-\infty,2),(3,\infty)"
    ),
    r"(2,12) \cup (12,102)": r"(2,102)\setminus\{12\}",
    r"\mathbb{R}": r"(-\infty,\infty)",
    r"3 \pm 2 \sqrt{2}": r"3 \mp 2\sqrt2|3-2\sqrt{2}, 3+2\sqrt{2}|x=3\pm\sqrt8",
    r"\{1\pm\sqrt{5},-2\}": r"-2, 1+\sqrt5, 1-\sqrt5",
    r"\begin{pmatrix} 1/5 \\ -2 \end{pmatrix}": (
        r"\begin{bmatrix} \frac15 \\ -2 \end{bmatrix}|\begin{pmatrix} 0.2 \\[2pt] -2 \\ \end{pmatrix}"
        r"|\frac15\begin{pmatrix} 1 \\ -10 \end{pmatrix}|\left[\begin{array}{c}1/5\\-2\end{array}\right]"
    ),
    "2516_8": r"2516_{8}|(2516)_8|2516_{\text{eight}}|2516_{\text{8}}|2516_8.",
    "255": r"255_{10}",
}

DIFFERENT = {
    "5": (
        r"|{}|?|\|6|-5|55|5x|x|5.000001|5.0000000001|4.9999999|5,6|5 or 6|5 \text{ or } 6|5\text{ and }6"
        r"|\pm 5|5!|5..|5^2|(5,5)|5i|5\pi|5 \implies x|\frac{}{}|\text{}|\text{not }5|5\text{ million}"
        r"|5\text{ or 6}|2 3|2\quad 3|\phantom{5}|\frac{|\frac{1}{0}|\frac{0}{0}|5\cdot|5=\frac{11}{2}"
        r"|5\text{ times }x|5\text{ hundred}|5\text{ dozen}|5\text{ squared}|5\text{ pi}|5\text{i}"
        r"|5\text{ thirds}|5\text{ }^2|1(4)|\frac{1}{1}4|\frac{4}{1}\frac{1}{1}|x>5|[5,\infty)"
    ),
    "12": r"1 2|1, 2|1.2|21",
    "3,250": r"3.25|3.250|3, 250|325|\{3,250\}",
    r"\frac{1}{3}": r"0.333|0.333333|0.33333333333333333|0.\overline{4}|3|\frac{3}{1}",
    r"0.\overline{12}": r"0.12|0.1212|0.\overline{21}",
    ".0000672": ".0000671|.000067|0.000672",
    "0.15": "0.1500001|0.015|15",
    "12345678901234567890": "12345678901234567891",
    r"\frac{1}{12}": r"\frac112|12",
    r"1\frac{1}{2}": r"\frac{1}{2}|\frac{11}{2}|1 + 2",
    r"137 \frac{1}{2}": r"\frac{137}{2}",
    r"2\pi": r"6.28|6.283185|6.283185307179586|6.28318530717958647692|2|\pi",
    r"\pi": r"3.14|\frac{22}{7}",
    r"\sqrt{2}": r"1.414|1.41421356|-\sqrt2|2",
    r"\sqrt{12}": r"\sqrt12|12",
    "e": "2.718",
    r"\$36": r"36\text{ cents}|€36|\$37",
    r"5.4 \text{ cents}": r"5.4\text{ dollars}|\$5.4",
    r"10\%": r"20\%|1\%|1000",
    r"50\%": r"0.5\%",
    r"90^\circ": r"\frac{\pi}{2}|91^\circ|90\text{ cm}",
    r"15\mbox{ cm}^2": (
        r"15\text{ cm}^3|15 cm^3|15\text{ cm}|15\text{ m}^2|15\text{ cubic centimeters}|15\text{ apples}"
        r"|16\text{ cm}^2|15^2|225"
    ),
    r"5\text{ m/s}": r"5\text{ m}|5\text{ km/h}|5\text{ seconds}",
    r"5\text{ hours}": r"5\text{ minutes}",
    "4t": "4|4s",
    "2m": "2",
    "3R^2": r"3R|3\pi R^2",
    r"4:30 \text{ p.m.}": r"4:30 \text{ a.m.}|2:15\text{ p.m.}|4:31",
    "4:30": "4:31|4.5",
    r"\text{(A)}": r"B|\text{(B)}|\text{(A) or (B)}|AA",
    r"\text{even}": r"\text{odd}|\text{even function}|2|x=\text{odd}|\text{not even}",
    r"\text{east}": r"\text{seat}|\text{west}|\text{north east}",
    r"\text{June 20}": r"June 21|20",
    r"\text{no solution}": r"0|\text{one solution}",
    "x=3": "y=3|x=4|x=-3|x>3",
    "y = 2x + 3": "y=2x-3|x=2y+3|y=2x|2x+3=0",
    "5x - 7y + 11z + 4 = 0": "5x - 7y + 11z + 5 = 0|5x - 7y + 11z - 4 = 0|0",
    "p - q": "q-p|p+q",
    r"\cot x": r"\tan x|\cot y",
    "x^{10}": "x^{1}0|10x",
    "x_1": "x_2|x",
    r"\pi+x": "3.14159265358979323846+x",
    r"x \equiv 3 \pmod{5}": r"x \equiv 2 \pmod{5}|3",
    "6+9i": "6-9i|6+9|15|(6,9)",
    "(1,2)": r"(2,1)|[1,2]|[1,2)|1,2|\{1,2\}|(1,2,3)|(1,3)|\begin{pmatrix}1\\2\end{pmatrix}",
    "1,2": r"1|(1,2)|1,2,3|1,2,2|1,3|12|-1,2",
    "1,2,2": "1,2",
    "(1,2),(3,4)": "(2,1),(3,4)|(1,2)|(1,2),(3,4),(5,6)",
    "[1,2]": r"x\in[1,2)|1<x<2|1\le x|(1,2)",
    r"(2,\infty)": r"[2,\infty)|x\ge 2|(2,\infty]|(-\infty,2)|x<2|(3,\infty)",
    r"(-\infty, 0]": r"[-\infty,0]|(-\infty,0)|x<0",
    r"(-\infty, 2) \cup (3, \infty)": (
        r"[-\infty,2)\cup(3,\infty)|(-\infty,2)\cup[3,\infty)|(-\infty,2)|x<2 \text{ or } x\ge 3"
    ),
    r"(2,12) \cup (12,102)": r"(2,102)|(2,12) \cap (12,102)",
    r"3 \pm 2 \sqrt{2}": r"3+2\sqrt2|3 \pm \sqrt2|-3 \pm 2\sqrt2",
    r"\{1\pm\sqrt{5},-2\}": r"1\pm\sqrt5|\{1\pm\sqrt{5},2\}",
    r"\begin{pmatrix} 1/5 \\ -2 \end{pmatrix}": (
        r"\begin{pmatrix} 1/5 & -2 \end{pmatrix}|\begin{pmatrix} -2 \\ 1/5 \end{pmatrix}|(1/5,-2)|-\frac25"
    ),
    "2516_8": r"2516|2516_9|2517_8|2516_{16}|-2516_8|1358",
    "1358": "2516_8|1358_9",
    "101_2": r"101_{10}|5",
    "5\\text{ or }6": "5|6",
}


def rows(table: dict[str, str]) -> list[tuple[str, str]]:
    """(gold, answer), for each answer between two |."""
    return [(gold, answer) for gold, answers in table.items() for answer in answers.split("|")]


@pytest.mark.parametrize(("gold", "answer"), rows(SAME))
def test_equal(verifier: MathVerifier, gold: str, answer: str) -> None:
    score = judge(verifier, gold, answer)
    assert score.correct is True, score.reason
    assert score.answer == answer


@pytest.mark.parametrize(("gold", "answer"), rows(DIFFERENT))
def test_not_equal(verifier: MathVerifier, gold: str, answer: str) -> None:
    assert judge(verifier, gold, answer).correct is False


# -- limits ---------------------------------------------------------------------------------------

ENDLESS = {
    "a factorial": "99999999!",
    "a tower": "9^{9^{9^9}}",
    "a tower in Python": "9**9**9**9",
    "many digits": r"10^{10^{10}}",
    "an expansion": "(x+1)^{99999}",
    "deep fractions": r"\frac{1}{1+" * 2000 + "x" + "}" * 2000,
    "100,000 characters": "1+" * 50_000 + "1",
    "an integral": r"\int_0^1 e^{x^{x^x}} \sin(\tan(x^{100})) dx",
}
TOWER = "9^{9^{9^9}}"


@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
def test_an_answer_that_takes_too_long_is_undecided(answer: str) -> None:
    verifier = MathVerifier(timeout=0.5, workers=1)
    score = judge(verifier, "7", answer)
    assert score == Score(answer=answer, reason="timed out", by="worker process")
    assert score.value is None
    verifier.close()


def test_undecided_is_one_answer_and_not_the_next(verifier: MathVerifier) -> None:
    impatient = MathVerifier(timeout=0.5, workers=1)
    assert judge(impatient, "5", TOWER).value is None
    assert judge(impatient, "5", "5").correct is True
    impatient.close()


@OFFICIAL
@pytest.mark.parametrize("answer", ["99999999!", "9**9**9**9"])
def test_the_official_grader_is_stopped_too(answer: str) -> None:
    verifier = MathVerifier(mode="official", timeout=0.5, workers=1)
    assert judge(verifier, r"\frac{1}{2}", answer) == Score(
        answer=answer, reason="timed out", by="worker process"
    )
    verifier.close()


def test_an_answer_that_takes_too_much_memory_is_undecided() -> None:
    answer = r"\operatorname{zeros}(99999,99999)"
    verifier = MathVerifier(memory_mb=256, workers=1)
    assert judge(verifier, "5", answer) == Score(
        answer=answer, reason="out of memory", by="worker process"
    )
    verifier.close()


@pytest.mark.parametrize(
    "noise", ["\x00", "\ud800", "🙂" * 999, "\\" * 99, "{" * 99, "$" * 99, r"\boxed{"]
)
def test_noise_is_wrong_or_undecided_and_never_raises(verifier: MathVerifier, noise: str) -> None:
    assert not judge(verifier, "5", noise).value


def test_it_scores_again_after_close(verifier: MathVerifier) -> None:
    verifier.close()
    assert judge(verifier, "0.5", r"\frac{1}{2}").correct is True


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"timeout": 0}, "verifier.timeout must be a number > 0 and <= 3600 seconds, got 0"),
        ({"memory_mb": 63}, "verifier.memory_mb must be an integer >= 64 and <= 1048576, got 63"),
        ({"workers": 0}, "verifier.workers must be an integer >= 1, got 0"),
        ({"mode": "officious"}, "unknown verifier.mode 'officious' .did you mean 'official'"),
    ],
)
def test_an_impossible_setting_is_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MathVerifier(**setting)  # type: ignore[arg-type]


def test_without_the_official_grader_its_mode_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("powerbench.verifiers.math.verifier.find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install --no-deps tinker-cookbook") as error:
        MathVerifier(mode="official")
    assert "\n" not in str(error.value)
    MathVerifier(mode="default")


@OFFICIAL
def test_a_mode_is_chosen_by_the_name_of_its_yaml_and_scores_under_that_name() -> None:
    for name in ("math", "math_official"):
        assert compose([f"verifier={name}"]).build("verifier").name == name


def test_a_problem_of_another_kind_is_refused(verifier: MathVerifier) -> None:
    with pytest.raises(UserError, match="choose the verifier of its task"):
        verifier.score(Problem("1", Prompt(""), "5", {}), r"\boxed{5}")


# -- the record -----------------------------------------------------------------------------------


def test_every_score_names_what_decided(verifier: MathVerifier) -> None:
    assert judge(verifier, "5", "$5$").by == "text"
    assert judge(verifier, r"\text{even}", r"\text{odd}").by == "text"
    assert judge(verifier, "5", r"\frac{10}{2}").by.startswith("math-verify 0.")
    assert judge(verifier, "1,2", "2,1.5").by.startswith("math-verify 0.")


def test_a_gold_answer_is_parsed_once() -> None:
    graders.parsed.cache_clear()
    for answer in (r"\frac{2}{4}", r"\frac{3}{6}", "0.4"):
        graders.default(r"\frac{1}{2}", answer)
    assert graders.parsed.cache_info().misses == 4
    assert graders.parsed.cache_info().maxsize


@OFFICIAL
def test_official_mode_is_the_official_grader_with_its_faults(official: MathVerifier) -> None:
    assert judge(official, "9", r"\frac91").correct is False
    assert judge(official, "5", "5").by.startswith("tinker-cookbook 0.")
    assert "PRM800K" in judge(official, "5", "5").by


# -- real answers ---------------------------------------------------------------------------------


def agreements(verifier: MathVerifier, truth: str) -> list[tuple[Score, bool]]:
    """The scores of all real pairs, with the true ones."""
    if not PAIRS.exists():
        pytest.skip(f"the real answer pairs are not here: {PAIRS}")
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    with ThreadPoolExecutor(2) as threads:
        scores = threads.map(lambda pair: judge(verifier, pair["gold"], pair["answer"]), pairs)
        return list(zip(scores, (pair[truth] for pair in pairs), strict=True))


def test_agrees_with_a_careful_reader_on_real_answers(verifier: MathVerifier) -> None:
    found = agreements(verifier, "equal")
    assert not [score for score, equal in found if score.correct and not equal]
    assert sum(score.correct is equal for score, equal in found) >= 0.999 * len(found)


@OFFICIAL
def test_agrees_with_the_official_grader_on_real_answers(official: MathVerifier) -> None:
    assert not [found for found in agreements(official, "official") if found[0].correct != found[1]]
