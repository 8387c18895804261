"""How mathematical problems are asked: what MATH500 and other sets share."""

STYLES = {
    # The official code never formats its template: the model is shown both pairs of braces.
    "official": (
        "Can you solve the following math problem? {problem} Please reason step by step, "
        "and put your final answer within \\boxed{{}}."
    ),
    "plain": (
        "Can you solve the following math problem? {problem} Please reason step by step, "
        "and put your final answer within \\boxed{}."
    ),
    "few_shot": """\
Problem: What is $6 \\cdot 4$?
Solution: Six times four is 24. The answer is $\\boxed{24}$.

Problem: How many sides does a pentagon have?
Solution: A pentagon has five sides. The answer is $\\boxed{5}$.

Problem: Solve $x - 4 = 9$ for $x$.
Solution: Add 4 to both sides: $x = 9 + 4 = 13$. The answer is $\\boxed{13}$.

Problem: {problem}
Solution:""",
}
