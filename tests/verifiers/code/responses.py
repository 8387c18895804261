"""Responses from which one program, the square root, is to be found, in many dressings."""

import textwrap

BEFORE = """from math import sqrt


def helper(x):
    return 2 * x


"""
HEAD = '''def root(x: float) -> float:
    """ The square root.
    >>> root(4.0)
    2.0
    """
'''
PROMPT = BEFORE + HEAD
BODY = "    return sqrt(x)\n"
WHOLE = "def root(x):\n    return sqrt(x)\n"
WRONG = "def root(x):\n    return 0.0\n"
BRANCHES = "    if x:\n        return sqrt(x)\n    return 0.0\n"


OTHER = "def root(x):\n    return other(x)\n"
HELPERS = "def other(x):\n    return third(x)\n\n\ndef third(x):\n    return sqrt(x)\n"
M = "def root(x):\n    return m.sqrt(x)\n"
RECURSIVE = "def root(x):\n    return sqrt(x) if x else root(0.0)\n"
OPTIONAL = "try:\n    import m\nexcept ImportError:\n    import math as m\n"
DOCUMENTED = f"def root(x):\n    '''\n    ```\n    root(4)\n    ```\n    '''\n{BODY}"


def fenced(code: str, fence: str = "```", language: str = "python") -> str:
    return f"{fence}{language}\n{code}\n{fence}\n"


def listed(text: str) -> str:
    return textwrap.indent(text, 3 * " ")


RIGHT = {
    # the prompt continued
    "body": BODY,
    "body without its line's end": BODY.rstrip(),
    "body, calls": f"\n{BODY}\n\nprint(root(4.0))\nassert False\ninput()\n",
    "body, another function": f"{BODY}\n\ndef other():\n    raise SystemExit\n\nother()\n",
    "body, main": f'{BODY}\nif __name__ == "program":\n    input()\n',
    "body, prose": f"{BODY}\nIt's (of course) the root.\n",
    "body, fence closed": f"{BODY}```\nThis is it.",
    "body, then the function again": f"{BODY}\n\n{WRONG}",
    "body, then a fence": f"{BODY}\nOr:\n{fenced(WRONG)}",
    "body with text at the margin": f"    note = '''\nat the margin\n'''\n{BODY}",
    "body that breaks off": f"{BODY}    if x and (\n",
    "body that needs later functions": f"    return other(x)\n\n\n{HELPERS}",
    "body that needs a later constant": "    return x ** K\n\n\nK = 1 / helper(1)\n",
    "body, the prompt's helper anew": "    return sqrt(helper(x) / 2)\n\n\ndef helper(x): return x\n",
    "body, then a deep line": f"{BODY}\nx = {'-' * 9000}1\n",
    "body without its first blanks": BRANCHES.lstrip(),
    "body with too few first blanks": BRANCHES[2:],
    "body at the margin": textwrap.dedent(BRANCHES) + "\nThat is all.\n",
    "body in tabs": BRANCHES.replace("    ", "\t"),
    "body in tabs, a branch on its line": "\tif x < 0: return 0\n\treturn sqrt(x)\n",
    "body in two blanks": BRANCHES.replace("    ", "  "),
    "body in eight blanks": BRANCHES.replace("    ", 8 * " "),
    "body of one import and one line": "import math\n    return math.sqrt(x)\n",
    "stub, then a fence": f"    pass\n\n{fenced(WHOLE)}",
    # whole functions
    "function": WHOLE,
    "function in tabs": BRANCHES.replace("    ", "\t").join(("def root(x):\n", "")),
    "module": PROMPT + BODY,
    "other signature": 'def root(number: "N", /, *rest: int) -> None:\n    return number**0.5\n',
    "blank before": f" {WHOLE}",
    "all indented": listed(WHOLE),
    "calls after": f"{WHOLE}\nprint(root(input()))\nassert root(1) == 2\nx = int(input())\n",
    "global after": f"{OTHER}\nother = input()\nother = sqrt\nother.x = 1\n",
    "global of a parameter's name": f"{WHOLE}\nx = 1 / 0\n",
    "main after": f"{WHOLE}\nif __name__ == '__main__':\n    raise SystemExit\n",
    "prose around": f"Sure. It's (I think)\n\n{WHOLE}\nDon't ask [me why\n",
    "much prose before": "It is a long story.\n" * 4000 + WHOLE,
    "import in prose": f"You'll need\n\nimport math as m\n\nand\n\n{M}",
    "draft, correction": f"{WRONG}\n{WHOLE}",
    "draft, check, correction": f"{WRONG}\nassert root(4) == 2\n\n{WHOLE}",
    "draft, call, correction": f"{WRONG}\nroot(1, 2)\nprint(1 / 0)\n\n{WHOLE}",
    "function, stub": f"{WHOLE}\ndef root(x):\n    pass\n",
    "function, doctest": f"{WHOLE}>>> root(4.0)\n2.0\n>>> root('a')\n",
    "decorated": f"from functools import cache\n\n\n@cache\n{WHOLE}",
    "class before": "class Half:\n    k = 0.5\n\n\ndef root(x):\n    return x**Half.k\n",
    "constants before": "HALF, ONE = 0.5, 1\ndef root(x):\n    return x**HALF\n",
    "optional import before": f"{OPTIONAL}\n\n{M}",
    "optional import after": f"{M}\n\n{OPTIONAL}",
    "import of all": "from math import *\n\ndef root(x):\n    return fabs(sqrt(x))\n",
    "state": "memo = {}\nmemo[9.0] = 3.0\n\ndef root(x):\n    return memo.get(x, 2.0)\n",
    "state by a call": "memo = {}; memo.update({9: 3.0})\n\ndef root(x):\n    return memo.get(x, 2.0)\n",
    "future": f"from __future__ import annotations\n{WHOLE.replace('x)', 'x: Missing)', 1)}",
    "lambda": "root = lambda x: sqrt(x)\n",
    "fence in a docstring": DOCUMENTED,
    "module that does not compile": f"{WHOLE}return 1\nawait x\nbreak\n",
    "branch that does not compile": f"if 4:\n    return 1\n\n{WHOLE}",
    # fences
    "fence": f"Here it is:\n{fenced(WHOLE)}It uses `sqrt`.",
    "fence of a module": f"Here:\n{fenced(PROMPT + BODY, language='')}",
    "fence unclosed": f"Here:\n```python\n{WHOLE}",
    "fence closed behind code": f"```python\n{WHOLE.rstrip()}```\nprint()",
    "fence of tildes": f"Here:\n{fenced(WHOLE, '~~~')}\n{WRONG}",
    "long fence": f"Here:\n{fenced(DOCUMENTED, '`````')}\n{WRONG}",
    "fence in a list": f"1. First\n{listed(fenced(WHOLE))}2. Done\n\n{WRONG}",
    "fence as a list item": f"- ```python\n{listed(WHOLE)}  ```\n\n{WRONG}x = 1\n",
    "fences in a list": listed(fenced("import math as m") + fenced(M)),
    "no fence but code": f"{fenced(WHOLE)}```root``` was:\n{WRONG}x = 1\n",
    "fence of a body": fenced(BODY),
    "fence of a body at the margin": fenced(textwrap.dedent(BRANCHES)),
    "fences of a body, a usage": fenced(BODY) + fenced("print(root(4.0))"),
    "fences of a draft body, a body": fenced("return 0") + fenced(BODY),
    "fence of a usage": f"{fenced('print(root(4))')}{fenced(WHOLE)}{fenced('root(input())')}",
    "fence with checks": fenced(f"{WHOLE}\nassert root(3) == 9\nprint(root(input()))\n"),
    "fence of a usage, function in prose": f"{WHOLE}\nUsage:\n{fenced('return root(4)')}",
    "fence against prose": f"{WRONG}\nNo:\n{fenced(WHOLE)}\n{WRONG}",
    "fence against prose, recursive": f"{fenced(RECURSIVE)}\n{WRONG}",
    "fences: draft, correction": f"{fenced(WRONG)}Sorry:\n{fenced(WHOLE)}",
    "fences: right, broken off": f"{fenced(WHOLE)}Faster:\n```python\ndef root(x):\n    y = sq",
    "fences: right, syntax error": fenced(WHOLE)
    + fenced("def root(x):\n    y = x\n    return y +* 2"),
    "fences: right, stub": fenced(WHOLE) + fenced(PROMPT),
    "fences: import, function": fenced("import math as m") + fenced(M),
    "fences: function, helpers": fenced(OTHER) + fenced(f"{HELPERS}\nassert not third(4)\n"),
    "fences: draft and helpers, correction": fenced(WRONG + HELPERS) + fenced(OTHER),
    # characters
    "null before": f"\0\0\n{fenced(WHOLE)}",
    "null after": f"{WHOLE}\0\0",
    "byte order mark": f"\ufeff{WHOLE}",
    "surrogate": f"\ud800\n{fenced(WHOLE)}\udfff",
    "not ASCII": "def root(x):\n    'Größe √'; é = sqrt(x); return é  # ü\n",
}
