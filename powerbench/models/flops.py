"""What decoding and prefilling cost in arithmetic: floating-point operations of a dense transformer."""

from typing import NamedTuple


class Size(NamedTuple):
    """What the arithmetic of a model depends on."""

    parameters: int
    """All of them."""
    multiplied: int
    """Those that every token is multiplied with: all but an input embedding, which is only looked up."""
    layers: int
    attention: int
    """The width of a layer's queries: heads times the size of a head."""


def flops(size: Size, tokens: float, contexts: float) -> float:
    """Operations of a forward pass over `tokens` tokens whose contexts have `contexts` tokens together.

    2 for each parameter and token, and for each layer, query and key 4 times the attention's width: a
    product of query and key, and one of weight and value (Kaplan et al. 2020, arXiv 2001.08361, table 1).
    Norms, activations and the softmax are left out.
    """
    return 2.0 * size.multiplied * tokens + 4.0 * size.layers * size.attention * contexts


def contexts(first: int, tokens: int) -> float:
    """The summed contexts of `tokens` tokens, the first of which sees `first` tokens before it."""
    return tokens * first + tokens * (tokens + 1) / 2
