"""The prefix cache in its plainest form: one object per block, one dictionary of names, one queue of free blocks.

A block is named by the name of the block before it and the keys of the segments that ended since, up to the one its last token lies in.
`Radix` must find, hold and evict the same blocks in the same order; `compare` checks that, and that its tree is sound.
"""
from __future__ import annotations

from collections import OrderedDict
from itertools import chain

from sim.policy.kv.radix import Node


class Block:
    def __init__(self):
        self.name, self.refs = None, 0


class ReferenceCache:
    """A KvCache that touches every block."""

    def __init__(self, blocks, block_size):
        self.blocks, self.block_size = blocks, block_size
        self.queue = OrderedDict((Block(), None) for _ in range(blocks))
        self.cached, self.names = {}, {}
        self.held, self.shared, self.group = {}, {}, []
        self.peak = 0

    @property
    def free(self):
        return len(self.queue)

    def name(self, before, keys):
        return self.names.setdefault((before, keys), len(self.names) + 1)

    def names_of(self, request, blocks):
        """Names of the first blocks of a request."""
        keys, ends = request.content[:2] if request.content else ((), ())
        keys = [*keys, request.reply or -1 - request.id]
        names, name, before = [], 0, -1
        for block in range(blocks):
            last = (block + 1) * self.block_size - 1
            segment = max(before, 0)
            while segment < len(ends) and ends[segment] <= last:
                segment += 1
            name = self.name(name, tuple(keys[before + 1 : segment + 1]))
            before = segment
            names.append(name)
        return names

    def count(self, tokens):
        return -(-tokens // self.block_size)

    def find(self, request):
        hits = 0
        for name in self.names_of(request, (request.prompt + request.generated - 1) // self.block_size):
            if name not in self.cached:
                break
            hits += 1
        return max(hits * self.block_size, request.brought)

    def need(self, request, tokens):
        blocks = self.count(request.computed + tokens)
        if request.order >= 0:
            return blocks - self.count(request.computed)
        for name in self.names_of(request, request.computed // self.block_size):
            if name not in self.cached:
                break
            blocks -= self.cached[name].refs > 0
        return blocks

    def grow(self, request, tokens):
        if self.need(request, tokens) > self.free:
            return False
        after = request.computed + tokens
        full = min(request.content.ends[-1], after) // self.block_size if request.content else 0
        last = full
        if request.order < 0:
            self.held[request.id], self.shared[request.id] = [], 0
            last = max(full, request.computed // self.block_size)
        else:
            self.collect(request)
        names = self.names_of(request, last)
        mine = self.share(request, names)
        while len(mine) < self.count(after):
            mine.append(self.pop())
        while len(mine) > self.count(after):
            self.put(mine.pop())
        self.publish(request, names[:full])
        self.peak = max(self.peak, self.blocks - self.free)
        return True

    def take(self, blocks):
        if blocks > self.free:
            return False
        self.group += [self.pop() for _ in range(blocks)]
        self.peak = max(self.peak, self.blocks - self.free)
        return True

    def give(self, blocks):
        for _ in range(blocks):
            self.put(self.group.pop())

    def drop(self, request, keep=True):
        self.collect(request)
        names = []
        if keep and (request.reply or request.generated < request.output):
            names = self.names_of(request, request.computed // self.block_size)
        mine = self.share(request, names)
        self.publish(request, names)
        shared = self.shared.pop(request.id)
        for block in [*reversed(mine[shared:]), *reversed(mine[:shared])]:
            self.put(block)
        del self.held[request.id]

    def forget(self):
        for block in self.queue:
            self.cached.pop(block.name, None)
            block.name = None

    def collect(self, request):
        """The blocks that the decode group took for a request become its own."""
        mine = self.held[request.id]
        while len(mine) < self.count(request.computed):
            mine.append(self.group.pop())

    def share(self, request, names):
        """Hold blocks that are there already; blocks of its own that they replace are left over at the end."""
        mine, shared = self.held[request.id], self.shared[request.id]
        for name in names[shared:]:
            if name not in self.cached:
                break
            block = self.cached[name]
            if block.refs == 0:
                del self.queue[block]
            block.refs += 1
            mine.insert(shared, block)
            shared += 1
        self.shared[request.id] = shared
        return mine

    def publish(self, request, names):
        """Name the blocks of its own that are full."""
        shared = self.shared[request.id]
        for block, name in list(zip(self.held[request.id], names, strict=False))[shared:]:
            block.name = name
            self.cached[name] = block
            shared += 1
        self.shared[request.id] = shared

    def pop(self):
        block, _ = self.queue.popitem(last=False)
        if block.name is not None:
            del self.cached[block.name]
            block.name = None
        block.refs = 1
        return block

    def put(self, block):
        block.refs -= 1
        if block.refs == 0:
            self.queue[block] = None


def blocks_of(kv, names):
    """Names of a tree's blocks, by node, front first; checks the tree on the way."""
    found, todo = {kv._root: [0]}, [kv._root]
    while todo:
        node = todo.pop()
        last = node.ends[-1]
        for label, child in node.children.items():
            assert (child.parent, child.start, child.labels[0]) == (node, last, label)
            assert len(child.labels) == len(child.ends)
            assert None not in child.labels[1:]
            assert [child.start, *child.ends] == sorted({child.start, *child.ends})
            assert node is kv._root or child.refs <= node.refs
            assert (child in kv._queue) == (child.refs == 0)
            name, at = found[node][-1], child.start
            found[child] = []
            for piece, end in zip(child.labels, child.ends, strict=True):
                keys = piece if isinstance(piece, tuple) else () if piece is None else (piece,)
                for _ in range(end - at):
                    name = names(name, keys)
                    found[child].append(name)
                    keys = ()
                at = end
            todo.append(child)
    del found[kv._root]
    return found


def queue_of(kv, blocks):
    """What is free, first out first, block by block."""
    found = [None] * kv._head
    for entry, count in kv._queue.items():
        assert bool(count) != isinstance(entry, Node)
        found += [None] * count if count else blocks[entry][::-1]
    return found + [None] * kv._tail


def compare(kv, plain):
    """The same blocks cached, with the same references, and free in the same order."""
    blocks = blocks_of(kv, plain.name)
    assert sorted(chain(*blocks.values())) == sorted(plain.cached)
    assert queue_of(kv, blocks) == [block.name for block in plain.queue]
    assert kv.free == plain.free == kv.blocks - kv.taken + kv.returned
    assert kv.peak == plain.peak
    for node, names in blocks.items():
        assert {plain.cached[name].refs for name in names} == {node.refs}
