"""The prefix cache with lower tiers in its plainest form: beside the blocks of the GPU, one queue of block names per tier."""
from __future__ import annotations

from collections import OrderedDict

from tests.reference_cache import ReferenceCache


class ReferenceTiers(ReferenceCache):
    """A KvCache that touches every block of every tier, and brings back all it finds."""

    def __init__(self, blocks, block_size, sizes, write_through):
        super().__init__(blocks, block_size)
        self.sizes, self.through = sizes, write_through
        self.tiers = [OrderedDict() for _ in sizes]
        self.written = [0 for _ in sizes]
        self.parts = []

    def store(self, level, name):
        if level == len(self.tiers):
            return
        tier = self.tiers[level]
        self.written[level] += name not in tier
        tier[name] = None
        tier.move_to_end(name)
        if len(tier) > self.sizes[level]:
            oldest, _ = tier.popitem(last=False)
            self.store(level + 1, oldest)

    def level(self, name):
        return next((level for level, tier in enumerate(self.tiers) if name in tier), None)

    def below(self, request):
        """(name, tier) of each block behind those found in the GPU, to the first that is nowhere."""
        names = self.names_of(request, (request.prompt + request.generated - 1) // self.block_size)
        found = []
        for name in names[super().find(request) // self.block_size :]:
            if self.level(name) is None:
                break
            found.append((name, self.level(name)))
        return found

    def find(self, request):
        if request.brought:
            return super().find(request)
        return super().find(request) + len(self.below(request)) * self.block_size

    def grow(self, request, tokens):
        if request.order < 0 and not request.brought:
            if self.need(request, tokens) > self.free:
                return False
            parts = self.below(request)
            for name, level in reversed(parts):
                self.store(level, name)
            self.parts = [sum(level == tier for _, level in parts) for tier in range(len(self.tiers))]
        return super().grow(request, tokens)

    def pop(self):
        name = next(iter(self.queue)).name
        block = super().pop()
        if name is not None and not self.through:
            self.store(0, name)
        return block

    def publish(self, request, names):
        super().publish(request, names)
        if self.through and self.ending:
            for name in reversed(self.names_of(request, self.shared[request.id])):
                self.store(0, name)

    ending = False

    def drop(self, request, keep=True):
        self.ending = keep
        super().drop(request, keep)
        self.ending = False

    def forget(self):
        super().forget()
        for tier in self.tiers:
            tier.clear()
