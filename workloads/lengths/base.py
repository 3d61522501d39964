"""How long prompts and answers are: pairs of token counts drawn from a law, all at least 1.

A kind is one dataclass with `draw`; files and catalogues are read in `prepare`, before the clock starts. Where a law of input and a law of
output are coupled, `correlation` is the rank correlation (Spearman) of the two, brought about by a Gaussian copula.
"""
from __future__ import annotations

import math
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

Correlation = Annotated[float, Field(ge=-1, le=1)]
MOST_TOKENS = 2**31 - 1  # what the tables of a result hold
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


class Lengths(Protocol):
    def prepare(self) -> list[str]:
        """Read and check inputs, once, before `draw`. Returns remarks for the result. Raises BadInput."""
        return []

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` prompt and output lengths in tokens: two int64 arrays, every value >= 1."""
        ...


def normals(rng: np.random.Generator, count: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of `count` standard normal numbers whose rank correlation is `correlation`.

    Normals of product-moment correlation r have the rank correlation 6/pi asin(r/2) (Pearson 1907), inverted here.
    """
    first, second = rng.standard_normal((2, count))
    r = 2 * math.sin(math.pi * correlation / 6)
    return first, r * first + math.sqrt(1 - r * r) * second


def uniforms(rng: np.random.Generator, count: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of `count` numbers uniform in (0, 1) whose rank correlation is `correlation`."""
    from scipy.special import ndtr

    first, second = normals(rng, count, correlation)
    return ndtr(first), ndtr(second)


def tokens(values: np.ndarray) -> np.ndarray:
    """Whole token counts nearest to `values`, at least 1.

    >>> tokens(np.array([0.2, 7.6])).tolist()
    [1, 8]
    """
    return np.asarray(np.clip(np.rint(values), 1, MOST_TOKENS), dtype=np.int64)
