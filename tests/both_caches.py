"""A small engine over the prefix cache and its plain form at once: requests come, run, decode, are preempted, and caches are forgotten."""
from __future__ import annotations

from collections import deque
from itertools import accumulate

from hypothesis import strategies as st

from sim.core.content import Content
from sim.core.request import Request
from sim.policy.kv.radix import Radix
from tests.reference_cache import ReferenceCache, compare, queue_of

SEGMENTS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 3, 4, 5, 8, 11, 16, 31])), min_size=1, max_size=5)
ACTS = st.lists(st.tuples(st.sampled_from([0, 0, 1, 1, 2, 3, 4, 4, 5, 6]), st.integers(0, 60), st.integers(0, 60)), max_size=60)


def content(*segments, common=0):
    """Content of (key, length) segments."""
    return Content([key for key, _ in segments], list(accumulate(length for _, length in segments)), common)


def request(id, prompt, output=1, content=None, reply=0):
    made = Request(id, 0.0, prompt, output)
    made.content, made.reply = content, reply
    return made


class Both:
    """A small engine over both caches: every answer must be the same."""

    def __init__(self, blocks, size, chunk, contents):
        self.kv, self.plain = Radix(blocks, size), ReferenceCache(blocks, size)
        self.size, self.chunk, self.contents = size, chunk, contents
        self.waiting, self.prefilling, self.decoding = deque(), [], []
        self.pending, self.made, self.order, self.hits = {}, 0, 0, 0

    def count(self, tokens):
        return -(-tokens // self.size)

    def both(self, method, *given):
        one = getattr(self.kv, method)(*given)
        assert one == getattr(self.plain, method)(*given)
        return one

    def play(self, act, a, b):
        (self.arrive, self.admit, self.go_on, self.commit, self.decode, self.preempt, self.forget)[act](a, b)
        compare(self.kv, self.plain)

    def arrive(self, a, b):
        pick = a % (len(self.contents) + 1)
        shared = self.contents[pick - 1] if pick else None
        self.made += 1
        longest = (self.kv.blocks - 1) * self.size
        prompt = min((shared.ends[-1] if shared else 1) + b % 7, longest)
        if shared and shared.ends[-1] > prompt:
            return
        one = request(self.made, prompt, min(1 + a % 23, longest - prompt + 1), shared, (0, 0, 1, 5, 100 + self.made)[b % 5])
        one.brought = min(prompt - 1, a % 40) if b % 11 == 0 else 0
        self.waiting.append(one)

    def admit(self, a, b):
        if not self.waiting:
            return
        one, self.kv._refused = self.waiting[0], None
        one.computed = self.both("find", one)
        assert one.content is None or self.kv.holds(one.content) <= one.content.ends[-1]
        tokens = min(one.prompt + one.generated - one.computed, self.chunk)
        need = self.both("need", one, tokens)
        if need > self.kv.free:
            assert not self.both("grow", one, tokens)
            one.computed = 0
            return
        before = self.kv.free
        assert self.both("grow", one, tokens)
        assert before - need <= self.kv.free
        self.hits += one.computed
        self.waiting.popleft()
        self.order = one.order = self.order + 1
        self.prefilling.append(one)
        self.pending[one.id] = tokens

    def go_on(self, a, b):
        idle = [one for one in self.prefilling if one.id not in self.pending]
        if idle:
            one = idle[a % len(idle)]
            tokens = min(one.prompt + one.generated - one.computed, 1 + b % self.chunk)
            need, free = self.both("need", one, tokens), self.kv.free
            if self.both("grow", one, tokens):
                assert free - need <= self.kv.free
                self.pending[one.id] = tokens
            else:
                assert need > free

    def commit(self, a=0, b=0):
        for one in [one for one in self.prefilling if one.id in self.pending]:
            one.computed += self.pending.pop(one.id)
            if one.computed == one.prompt + one.generated:
                one.generated += 1
                self.prefilling.remove(one)
                self.decoding.append(one)
        self.end()

    def decode(self, a, b):
        self.commit()
        if self.decoding:
            steps = min([1 + a % 9, *(one.output - one.generated for one in self.decoding)])
            blocks = sum(self.count(one.computed + steps) - self.count(one.computed) for one in self.decoding)
            if self.both("take", blocks):
                for one in self.decoding:
                    one.computed += steps
                    one.generated += steps
                self.end()
            else:
                self.preempt(len(self.decoding) - 1, b)

    def end(self):
        for one in [one for one in self.decoding if one.generated == one.output]:
            self.decoding.remove(one)
            self.drop(one)

    def preempt(self, a, b):
        self.commit()
        running = self.decoding + self.prefilling
        if running:
            one = running[a % len(running)]
            (self.decoding if one in self.decoding else self.prefilling).remove(one)
            self.drop(one)
            one.computed, one.preemptions = 0, one.preemptions + 1
            self.waiting.appendleft(one)

    def forget(self, a, b):
        """What nobody holds, or everything: then all that run start again."""
        self.commit()
        if a % 2:
            for one in self.decoding + self.prefilling:
                self.drop(one, keep=False)
                one.computed = 0
                self.waiting.appendleft(one)
            self.decoding, self.prefilling = [], []
        self.kv.forget()
        self.plain.forget()
        assert len(queue_of(self.kv, {})) == self.kv.free == self.kv.nameless
        assert not a % 2 or not self.kv._root.children

    def drop(self, one, keep=True):
        self.kv.drop(one, keep)
        self.plain.drop(one, keep)
        one.order = -1
        assert (one.leaf, one.linked) == (None, 0)
