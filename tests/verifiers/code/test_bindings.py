"""The entry point may be bound by any statement; what only uses its name binds nothing.

Run: pytest tests/verifiers/code/test_bindings.py
"""

from textwrap import indent

import pytest
from responses import PROMPT, WHOLE, WRONG, fenced
from test_extract import defined

from powerbench.verifiers.code.extract import extract

G = "def g(x):\n    return sqrt(x)\n\n"
METHOD = "class A:\n    def root(self, x):\n        return sqrt(x)\n\n"
NESTED = "def make(k):\n    def root(x):\n        return x**k\n    return root\n\n"
PLUS = "def plus(f, k=0):\n    return lambda x: f(x) + k\n\n"

BINDING = {
    "alias": f"{G}root = g\n",
    "alias of a builtin": "root = sqrt\n",
    "alias with a type": f"{G}root: object = g\n",
    "alias in a tuple": f"{G}root, other = g, 1\n",
    "alias in a chain": f"{G}other = root = g\n",
    "alias by condition": f"{G}root = g if callable(g) else None\n",
    "alias in globals()": f"{G}globals()['root'] = g\n",
    "walrus": "(root := lambda x: sqrt(x))\n",
    "partial": "from functools import partial\n\nroot = partial(pow, exp=0.5)\n",
    "functools.partial": "import functools\n\nroot = functools.partial(pow, exp=0.5)\n",
    "import": "from math import sqrt as root\n",
    "import or else": f"try:\n    from nowhere import root\nexcept ImportError:\n{indent(WHOLE, 4 * ' ')}",
    "branches": f"if sqrt:\n{indent(WHOLE, 4 * ' ')}else:\n{indent(WRONG, 4 * ' ')}",
    "alias in a branch": f"{G}if sqrt:\n    root = g\nelse:\n    root = None\n",
    "in a loop": "for k in (1, 0.5):\n    root = lambda x, k=k: x**k\n",
    "instance": "class A:\n    def __call__(self, x):\n        return sqrt(x)\n\nroot = A()\n",
    "method": f"{METHOD}root = A().root\n",
    "method of an instance": f"{METHOD}a = A()\nroot = a.root\n",
    "closure": f"{NESTED}root = make(0.5)\n",
    "class": "class root:\n    def __new__(cls, x):\n        return sqrt(x)\n",
    "item": "table = {'root': sqrt}\nroot = table['root']\n",
    "made at once": "root = (lambda k: lambda x: x**k)(0.5)\n",
    "wrapped": f"from functools import cache\n\n{WHOLE}\nroot = cache(root)\n",
    "wrapped twice": f"{PLUS}{WHOLE}\nroot = plus(root, 1)\nroot = plus(f=root, k=-1)\n",
    "placeholder, alias": f"root = None\n{G}root = g\n",
    "function, a call's result": f"{WHOLE}\nroot = root(4.0)\nprint(root)\n",
    "function, another result": f"{WHOLE}\nroot = float(input())\n",
    "function, alias in main": f"{WHOLE}\nif __name__ == '__main__':\n    root = float\n",
    "function, attribute": f"{WHOLE}\nroot.calls = 0\n",
}


@pytest.mark.parametrize("how", BINDING)
def test_the_function_is_found_however_it_is_bound(how: str) -> None:
    code = BINDING[how]
    listed = f"1. It:\n{indent(fenced(code), 3 * ' ')}"
    for text in (
        code,
        f"Sure.\n\n{code}\nDon't ask.\n",
        fenced(code),
        listed,
        f"```python\n{code}",
    ):
        root = defined(extract(PROMPT, "root", text))
        assert (root(4.0), root(9.0)) == (2.0, 3.0)


@pytest.mark.parametrize(
    "code",
    [
        *("root = 5\n", "root = root(3.0)\n", "root = [sqrt]\n", "root = cache(root)\n", "other = root\n"),
        *("root = float(input())\n", "root += 1\n", "import root\n", "root == sqrt\n", "root.f = sqrt\n"),
    ],
)  # fmt: skip
def test_a_use_of_the_name_binds_no_function(code: str) -> None:
    for text in (code, fenced(code)):
        assert extract(PROMPT, "root", text) is None


def test_an_alias_after_a_draft_counts_as_a_correction() -> None:
    code = f"{WRONG}\n{G}root = g\n"
    for text in (code, fenced(code), f"{fenced(WRONG)}Better:\n{fenced(G + 'root = g')}"):
        assert defined(extract(PROMPT, "root", text))(4.0) == 2.0
