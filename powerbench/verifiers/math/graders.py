"""The graders of mathematical answers: what runs in the worker processes.

They may take forever or all memory, and may print: they are for a process that can be killed.
"""

import re
from functools import cache
from importlib.metadata import version
from typing import Any

from powerbench.types import Score
from powerbench.verifiers.math.cleaning import THREES, clean, is_text, separated, words
from powerbench.verifiers.math.expressions import approximates, parsed, same, union
from powerbench.verifiers.math.notation import (
    Chain,
    Collection,
    chain,
    collection,
    conditions,
    has_conditions,
    has_letters,
    has_names,
    numeral,
    ratio,
    same_time,
    scientific,
    unpacked,
    without_names,
)
from powerbench.verifiers.math.units import conflict, quantity
from powerbench.verifiers.option_letters import option_letter

TEXT = "text"
"""What decides where no grader is needed: the answers as text."""

UNBOUNDED = re.compile(r"\[-?\\infty|\\infty\]")
"""An interval closed at infinity, which is none."""

OPTION = re.compile(r"\\text\{\(?([A-E])\)?\}|\(([A-E])\)|([A-E])")
"""The letter of an option, as a gold answer."""


def official(gold: str, answer: str) -> Score:
    """As the PRM800K grader scores (Lightman et al. 2023, arXiv 2305.20050), answers untouched."""
    from tinker_cookbook.recipes.math_rl.math_grading import grade_answer

    correct = bool(grade_answer(answer, gold))
    return _score(correct, by=f"{_package('tinker-cookbook')} (PRM800K grader)")


def default(gold: str, answer: str) -> Score:
    """Whether two answers are the same for a careful reader: as text, or else as math-verify sees it."""
    golds, answers = clean(gold), clean(answer)
    option, letter = OPTION.fullmatch(golds), option_letter(answer)
    if option and letter:
        return _score(letter in option.groups(), "the option's letter")
    score = equal(scientific(golds, answers), scientific(answers, golds))
    if score.correct is False and "," in gold + answer:
        gold, answer = separated(gold), separated(answer)
        if THREES.fullmatch(gold) or THREES.fullmatch(answer):  # a list, if the other one is
            return _listed(gold, answer, score)
    return score


def equal(gold: str, answer: str) -> Score:
    """The same for cleaned answers, and for the items of tuples, sets and lists."""
    if gold == answer:
        return _score(True, "same text")
    if UNBOUNDED.search(answer) and not UNBOUNDED.search(gold):
        return _score(False, "closed at infinity")
    if "=" in gold and "=" in answer:
        gold, answer = unpacked(gold), unpacked(answer)
    gold, answer = map(conditions, without_names(gold, answer))
    golds, answers = collection(gold), collection(answer)
    score = _chains(gold, answer, golds, answers)
    if score is not None:
        return score
    several = len(golds.items) > 1, len(answers.items) > 1
    if several == (False, False):
        return _single(golds.items[0], answers.items[0])
    if several == (True, True) and has_conditions(golds.items) == has_conditions(answers.items):
        return _collections(golds, answers)
    return _expressions(union(gold, golds), union(answer, answers))


def _score(correct: bool, reason: str = "", by: str = TEXT) -> Score:
    return Score(correct=correct, reason=reason or ("equal" if correct else "not equal"), by=by)


@cache
def _package(name: str) -> str:
    return f"{name} {version(name)}"


# -- several parts --------------------------------------------------------------------------------


def _chains(gold: str, answer: str, golds: Collection, answers: Collection) -> Score | None:
    """For an answer said more than once: whether each part equals the other answer; None if undecided."""
    said = chain(answer)
    if said and len(golds.items) == 1 and "=" not in gold:
        if _says(said, gold) or any(equal(gold, part).correct for part in said.rough):
            return _score(True, "equal parts")
        return None if said.alternatives else _score(False, "parts that differ")
    other, said = said, chain(gold)
    if said and other and _says(said, other.exact[0]) and _says(other, other.exact[0]):
        return _score(True, "equal parts")
    if said and not other and len(answers.items) == 1 and "=" not in answer and _says(said, answer):
        return _score(True, "equal parts")
    return None


def _says(said: Chain, other: str) -> bool:
    return all(equal(other, part).correct for part in said.exact) and all(
        approximates(part, other) for part in said.rough
    )


def _collections(gold: Collection, answer: Collection) -> Score:
    """Item by item: in their order within ( ) and [ ] and under names, in any order in sets and bare lists."""
    named = has_names(gold.items), has_names(answer.items)
    if gold.brackets != answer.brackets and not (
        any(named) and "[" not in gold.brackets + answer.brackets
    ):
        return _score(False, "different brackets")
    if len(gold.items) != len(answer.items):
        return _score(False, "not as many items")
    ordered = bool(gold.brackets) or named[0] != named[1]
    left, by = list(answer.items), TEXT
    for item in gold.items:
        for candidate in left[:1] if ordered else tuple(left):
            score = equal(item, candidate)
            by = score.by if by == TEXT else by
            if score.correct:
                left.remove(candidate)
                break
        else:
            return _score(False, by=by)
    return _score(True, by=by)


def _listed(gold: str, answer: str, score: Score) -> Score:
    golds, answers = collection(gold), collection(answer)
    several = len(golds.items) == len(answers.items) > 1
    ambiguous = all(THREES.fullmatch(text) for text in (gold, answer))
    return _collections(golds, answers) if several and not ambiguous else score


# -- one part -------------------------------------------------------------------------------------


def _single(gold: str, answer: str) -> Score:
    if "=" in answer and "=" not in gold and parsed(answer) is None:
        name, _, value = answer.rpartition("=")
        answer = value if has_letters(name) else answer
    at = same_time(gold, answer)
    if at is not None:
        return _score(at, "the same time" if at else "another time")
    terms = ratio(gold), ratio(answer)
    if max(map(len, terms)) > 2:
        return _ratios(*terms)
    golds, answers = quantity(gold), quantity(answer)
    units = (golds.unit, answers.unit)
    if conflict(*units):
        return _score(False, "different units")
    gold, answer = golds.value, answers.value
    if gold == answer:
        return _score(True, "same text")
    numerals = numeral(gold), numeral(answer)
    if any(numerals):  # math-verify reads 445_6 as 445
        return _score((numerals[0] or (gold, "10")) == (numerals[1] or (answer, "10")))
    if is_text(gold) or is_text(answer) or parsed(gold) is None:
        return _words(gold, answer)
    if _same_word(gold, answer):
        return _score(True, "same words")
    score = _expressions(parsed(gold), parsed(answer))
    if score.correct is False and units.count("percent^1") == 1:
        gold, answer = (
            rf"\frac{{{q.value}}}{{100}}" if q.unit else q.value for q in (golds, answers)
        )
        return _expressions(parsed(gold), parsed(answer))
    return score


def _ratios(gold: tuple[str, ...], answer: tuple[str, ...]) -> Score:
    """Term by term, each times the other's first term that is not zero."""
    if len(gold) != len(answer):
        return _score(False, "not as many terms")
    first = next((i for i, term in enumerate(gold) if term != "0"), 0)
    scores = [
        equal(rf"({term})\cdot({answer[first]})", rf"({other})\cdot({gold[first]})")
        for term, other in zip(gold, answer, strict=True)
    ]
    return next((score for score in scores if not score.correct), scores[-1])


def _words(gold: str, answer: str) -> Score:
    correct = words(gold) == words(answer)
    return _score(correct, "same words" if correct else "different words")


def _same_word(gold: str, answer: str) -> bool:
    """Whether they are one word, or one letter, but for capitals; `AB` and `ab` are products."""
    if not (gold.isalpha() and gold.lower() == answer.lower()):
        return False
    return len(gold) > 2 or gold[1:] == answer[1:]


def _expressions(gold: Any, answer: Any) -> Score:
    """As two sympy objects; whatever that raises is for the caller."""
    by = _package("math-verify")
    if gold is None or answer is None:
        return _score(False, "not an expression", by)
    return _score(same(gold, answer), by=by)
