"""Named randomness: one stream per name, derived from (seed, name).

Adding an agent never moves the arrivals, and two what-ifs that share a seed share their luck (common random numbers). PCG64 seeded by a
`SeedSequence` over the seed and a digest of the name; nothing here depends on the order in which streams are asked for.
"""
from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of one name. The same (seed, name) always gives the same numbers.

    >>> bool(stream(1, "arrivals").random() == stream(1, "arrivals").random())
    True
    """
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()])))


class Keyed:
    """Uniform numbers by place, not by order: Philox, whose key and counter say where. A stream per request costs a microsecond."""

    __slots__ = ("_bits", "_rng", "_state")

    def __init__(self, seed: int, name: str):
        key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")
        self._bits = np.random.Philox(key=[key, 0])
        self._rng = np.random.Generator(self._bits)
        self._state = self._bits.state

    def at(self, number: int, turn: int, count: int) -> np.ndarray:
        """`count` numbers in [0, 1) of the stream of one number >= 0 and its turn; the same place always holds the same numbers.

        >>> keyed = Keyed(1, "drafts")
        >>> keyed.at(7, 2, 1) == keyed.at(7, 2, 3)[:1], keyed.at(7, 2, 1) == keyed.at(7, 3, 1)
        (array([ True]), array([False]))
        """
        place = self._state["state"]
        place["key"][1], place["counter"][3] = number, turn
        self._bits.state = self._state
        return self._rng.random(count)


class Draws:
    """Uniform numbers in [0, 1), drawn in blocks: a scalar draw from numpy costs microseconds, one from a list nanoseconds."""

    __slots__ = ("_block", "_rng")

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._block: list[float] = []

    def next(self) -> float:
        if not self._block:
            self._block = self._rng.random(1024).tolist()
        return self._block.pop()

    def below(self, n: int) -> int:
        """An integer in 0 .. n-1."""
        return int(self.next() * n)


def mix(one: int, other: int) -> int:
    """64 well-mixed bits of two numbers (the finaliser of SplitMix64): luck that belongs to a thing, whoever asks and when."""
    z = (one * 0x9E3779B97F4A7C15 + other * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)


def mixes(one: int, others: np.ndarray) -> np.ndarray:
    """`mix` of a number with each of an array of others (uint64).

    >>> [int(z) for z in mixes(5, np.array([3, 9], dtype="u8"))] == [mix(5, 3), mix(5, 9)]
    True
    """
    z = others * np.uint64(0xD1B54A32D192ED03)
    z += np.uint64((one * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Luck:
    """The luck of one thing, such as an agent: uniform numbers in [0, 1) one after the other, and a luck of their own for its parts.

    A part's luck does not depend on how many numbers the whole or other parts have used, so that a turn is the same whatever went before.

    >>> whole = Luck(1)
    >>> part = whole.part(3).next()
    >>> _ = whole.next()
    >>> whole.part(3).next() == part, 0 <= part < 1
    (True, True)
    """

    __slots__ = ("_count", "_key")

    def __init__(self, key: int):
        self._key, self._count = key, 0

    def next(self) -> float:
        self._count += 1
        return (mix(self._key, self._count) >> 11) * 2.0**-53

    def part(self, number: int) -> Luck:
        return Luck(mix(self._key ^ 0xA5A5A5A5A5A5A5A5, number))
