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
}
