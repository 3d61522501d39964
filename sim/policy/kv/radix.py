"""Prefix cache: blocks whose tokens are known to be equal are held once, and stay findable after use until they are needed.

The semantics are those of vLLM V1's block pool: only full blocks are shared, a block is named by all that comes before it too, requests
count references, what nobody holds waits in a queue for eviction (least recently used first; of one request the last block first), and new
blocks are findable as soon as they are taken. Blocks that hold nothing wait in the same queue and are reused in turn. One rule differs:
where another request has put the same block there meanwhile, it is shared and the request's own block serves for what comes next (one
copy, as in SGLang's RadixAttention, Zheng et al. 2024); vLLM keeps both copies for a while.

vLLM walks a hash table block by block. Here the blocks form a radix tree whose nodes are runs of blocks with the same holders, so the cost
is that of nodes and segments touched, whatever the block size; without shared contents it is that of counting. What a piece of a path adds
to the names of the blocks before it is its label: the key of a segment, a tuple of keys where segments ended inside the block, or None
where the segment of the block before goes on.
"""
from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sim.core.content import Content
from sim.core.request import Request
from sim.policy.kv.node import Label, Node, in_use, match, merged


class Radix:
    """`blocks` blocks of `block_size` tokens. `evicted(node, blocks)` is called before the last so many blocks of a node are given up, and
    `extended(node)` after new blocks have been named, which end with that node.

    `free` are: `_head` blocks that hold nothing, the entries of `_queue` in turn (nodes that nobody holds, marked 0, and counts of blocks
    that hold nothing), `_tail` more that hold nothing, and last `kept` blocks of the nodes in `_kept`. A node comes after its children
    there, so it has none left when its turn comes. `again` counts blocks that were taken with what they held.
    """

    __slots__ = (
        "_grown", "_head", "_kept", "_least", "_marks", "_queue", "_refused", "_root", "_tail", "again", "block_size", "blocks", "evicted",
        "extended", "free", "grows", "kept", "returned", "taken",
    )  # fmt: skip

    def __init__(self, blocks: int, block_size: int, evicted: Callable[[Node, int], None] | None = None):
        self.blocks = self.free = self._least = self._head = blocks
        self.block_size = block_size
        self.grows = True
        self.evicted = evicted
        self.extended: Callable[[Node], None] | None = None
        self.taken = self.returned = self.again = self.kept = self._tail = self._marks = 0
        self._queue: OrderedDict[Node | int, int] = OrderedDict()
        self._kept: OrderedDict[Node, None] = OrderedDict()
        self._refused: tuple[int, int, int] | None = None
        self._grown = 0
        self._root = Node(None, 0, [], [0])

    @property
    def peak(self) -> int:
        return self.blocks - self._least

    # -- asking ------------------------------------------------------------
    def find(self, request: Request) -> int:
        brought = request.brought
        request.fetch = 0
        if not self._root.children:
            request.fetch = brought
            return brought
        last = (request.prompt + request.generated - 1) // self.block_size
        found = match(self._root, 0, *self._names(request.content, tail_key(request), 0, last))[1] * self.block_size
        if found >= brought:
            return found
        request.fetch = brought - found
        return brought

    def holds(self, content: Content) -> int:
        """Tokens at the front of a content that are cached, in whole blocks."""
        return match(self._root, 0, *self._names(content, 0, 0, content.ends[-1] // self.block_size))[1] * self.block_size

    def names(self, request: Request) -> list[tuple[Label, int]]:
        """Names of the blocks of a request that `find` looks for: (label, block before which it ends), front first."""
        last = (request.prompt + request.generated - 1) // self.block_size
        return list(zip(*self._names(request.content, tail_key(request), 0, last), strict=True)) if last else []

    @property
    def nameless(self) -> int:
        """Blocks that can be taken before one is evicted that could still be found."""
        return self._head

    def need(self, request: Request, tokens: int) -> int:
        """Blocks others may turn out to share count in full, unless they were found and somebody holds them.

        Who was found room too small for is not looked at again until blocks are given back or taken by name. Decoders may evict what it
        found meanwhile, so that it needs fewer blocks; without this rule that would be a reason to look at it in every step.
        """
        size, computed = self.block_size, request.computed
        blocks = (computed + tokens + size - 1) // size
        if request.order >= 0:
            return blocks - (computed + size - 1) // size
        if self._refused is not None and self._refused == (request.id, self.returned, self._grown):
            return self.blocks + 1
        if computed < size or not self._root.children:
            return blocks
        self._refused = request.id, self.returned, self._grown
        nodes, end = match(self._root, 0, *self._names(request.content, tail_key(request), 0, computed // size))
        return blocks - in_use(nodes, end)

    def path(self, node: Node) -> list[tuple[Label, int]]:
        """Names of a node's blocks and of all before them: (label, block before which it ends), front first."""
        nodes = [node]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        pieces: list[tuple[Label, int]] = []
        for step in reversed(nodes[:-1]):
            if step.labels[0] is None:
                pieces[-1] = (pieces[-1][0], step.ends[0])
                pieces += zip(step.labels[1:], step.ends[1:], strict=True)
            else:
                pieces += zip(step.labels, step.ends, strict=True)
        return pieces

    # -- taking ------------------------------------------------------------
    def grow(self, request: Request, tokens: int) -> bool:
        self._grown += 1
        size, computed, content = self.block_size, request.computed, request.content
        after = computed + tokens
        blocks = (after + size - 1) // size
        full = min(content.ends[-1], after) // size if content is not None else 0
        if request.order < 0:
            held, leaf, linked, found = 0, self._root, 0, computed // size
        else:
            held, linked, found = (computed + size - 1) // size, request.linked, 0
            leaf = request.leaf or self._root
        last = full if full > found else found
        if linked >= last:
            return self.take(blocks - held)
        nodes, end = match(leaf, linked, *self._names(content, tail_key(request), linked, last)) if leaf.children else ([], linked)
        if blocks - held - (in_use(nodes, min(found, end)) if found else 0) > self.free:
            return False
        if nodes:
            leaf = self._hold(nodes, end)
        fresh = blocks - held - (end - linked)
        if fresh > 0:
            self.take(fresh)
        else:
            if fresh:
                self.give(-fresh)
            if self.free < self._least:
                self._least = self.free
        if end < full:
            leaf = self._extend(leaf, *self._names(content, 0, end, full))
            end = full
        request.leaf, request.linked = leaf, end
        return True

    def take(self, blocks: int) -> bool:
        left = self.free - blocks
        if left < 0:
            return False
        self.free = left
        self.taken += blocks
        if left < self._least:
            self._least = left
        if blocks <= self._head:
            self._head -= blocks
        else:
            self._evict(blocks)
        return True

    # -- giving back ------------------------------------------------------------
    def give(self, blocks: int) -> None:
        self._tail += blocks
        self.free += blocks
        self.returned += blocks

    def drop(self, request: Request, keep: bool = True) -> None:
        """What follows the content is kept under the request's reply key; without one only while the request itself is to come back."""
        if keep:
            leaf = self._finish(request)
        else:
            leaf, own = request.leaf, (request.computed + self.block_size - 1) // self.block_size - request.linked
            request.leaf, request.linked = None, 0
            if own:
                self.give(own)
        if leaf is not None:
            self._release(leaf)

    def forget(self) -> None:
        # As if all that is free were taken and given back.
        self._evict(self.free)
        self._head, self._refused = self.free, None

    def retain(self, request: Request) -> Node | None:
        """`drop`, but what can be found again is used up only after all else that is free, the longest retained first, until `let_go`.

        Returns what to let go of; None: nothing.
        """
        leaf = self._finish(request)
        if leaf is not None:
            node = leaf
            while node.parent is not None:
                node.pins += 1
                node = node.parent
            self._release(leaf)
        return leaf

    def withhold(self, request: Request) -> Node | None:
        """`drop`, but what can be found again stays held until `release`. Returns what to release; None: nothing."""
        return self._finish(request)

    def alone(self, leaf: Node) -> int:
        """Blocks up to here that nobody holds beside the one who asks."""
        blocks, node = 0, leaf
        while node.parent is not None:
            blocks += node.ends[-1] - node.start if node.refs == 1 else 0
            node = node.parent
        return blocks

    def release(self, leaf: Node) -> None:
        """What was withheld is held no more."""
        self._release(leaf)

    def let_go(self, leaf: Node) -> None:
        """What was retained waits for eviction like all else, as if it had been given back now."""
        node = leaf
        while node.parent is not None:
            node.pins -= 1
            if not node.pins and node in self._kept:
                del self._kept[node]
                self.kept -= node.ends[-1] - node.start
                self._enqueue(node)
            node = node.parent

    def _finish(self, request: Request) -> Node | None:
        """Give back what nobody can find again; returns the end of the rest, which the request's references still hold."""
        size, computed, linked = self.block_size, request.computed, request.linked
        own = (computed + size - 1) // size - linked
        leaf: Node | None = request.leaf
        full = computed // size
        if full > linked and (request.reply or request.generated < request.output):
            leaf, tail = leaf or self._root, tail_key(request)
            nodes, end = match(leaf, linked, *self._names(request.content, tail, linked, full))
            if nodes:
                leaf = self._hold(nodes, end)
            if end < full:
                leaf = self._extend(leaf, *self._names(request.content, tail, end, full))
                own -= full - end
        if own:
            self.give(own)
        request.leaf, request.linked = None, 0
        return leaf

    # -- the tree ------------------------------------------------------------
    def _names(self, content: Content | None, tail: int, at: int, last: int) -> tuple[list[Label], list[int]]:
        """Labels and ends of a request's blocks `at` to `last` > `at` (or both 0: none), a piece for each segment that completes a block;
        `tail` is the key of what follows the content.
        """
        size = self.block_size
        keys, ends = (content.keys, content.ends) if content is not None else ((), ())
        before, through = bisect_left(ends, at * size) if at else -1, bisect_left(ends, last * size)
        if before == through:
            return [None], [last]
        # The segment of the block before may go on up to block `start`; the others follow.
        start = ends[before] // size if before >= 0 else 0
        labels: list[Any] = [*keys[before + 1 : through + 1]]
        stops = [end // size for end in ends[before + 1 : through]]
        stops.append(last)
        if through == len(ends):
            labels.append(tail)
        if stops[0] == start or len(set(stops)) < len(stops):
            labels, stops = merged(labels, stops, start)
        if start > at:
            labels.insert(0, None)
            stops.insert(0, start)
        return labels, stops

    def _hold(self, nodes: list[Node], end: int) -> Node:
        """Take references on nodes that follow each other, of the last one up to block `end`; returns that last one."""
        leaf = nodes[-1]
        if leaf.ends[-1] > end:
            leaf = nodes[-1] = self._split(leaf, end)
        queue, idle = self._queue, 0
        for node in nodes:
            if not node.refs:
                # A part just split off never waited there; its rest goes on waiting.
                size = node.ends[-1] - node.start
                if node.pins:
                    self._kept.pop(node, None)
                    self.kept -= size
                else:
                    queue.pop(node, None)
                idle += size
            node.refs += 1
        self.free -= idle
        self.taken += idle
        self.again += idle
        return leaf

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node before block `at`; the upper part is a new node, so that whoever has the node as its leaf still has the right one."""
        parent, labels, ends = node.parent, node.labels, node.ends
        assert parent is not None, "the root has no blocks"
        i = bisect_left(ends, at)
        upper = Node(parent, node.start, labels[: i + 1], [*ends[:i], at])
        upper.refs, upper.pins, upper.piece, node.piece = node.refs, node.pins, node.piece, None
        parent.children[labels[0]] = upper
        if ends[i] == at:
            node.labels, node.ends = labels[i + 1 :], ends[i + 1 :]
        else:
            node.labels, node.ends = [None, *labels[i + 1 :]], ends[i:]
        node.parent, node.start = upper, at
        upper.children[node.labels[0]] = node
        return upper

    def _extend(self, leaf: Node, labels: list[Label], ends: list[int]) -> Node:
        """Put new blocks of one request behind its leaf, into the leaf itself where nobody else would notice; returns the new leaf."""
        if leaf.refs == 1 and not leaf.children and not leaf.pins:
            if labels[0] is None:
                leaf.ends.pop()
                del labels[0]
            leaf.labels += labels
            leaf.ends += ends
            node = leaf
        else:
            node = Node(leaf, leaf.ends[-1], labels, ends)
            node.refs = 1
            leaf.children[labels[0]] = node
        if self.extended is not None:
            self.extended(node)
        return node

    def _release(self, leaf: Node) -> None:
        """Let go of a path, the leaf first; what nobody else holds joins the queue, or those that are kept."""
        idle = 0
        node: Node = leaf
        while node.parent is not None:
            node.refs -= 1
            if not node.refs:
                size = node.ends[-1] - node.start
                if node.pins:
                    self._kept[node] = None
                    self.kept += size
                else:
                    self._enqueue(node)
                idle += size
            node = node.parent
        self.free += idle
        self.returned += idle

    def _enqueue(self, node: Node) -> None:
        """Put a node that nobody holds at the end of the queue."""
        if self._tail:
            self._marks += 1
            self._queue[self._marks] = self._tail
            self._tail = 0
        self._queue[node] = 0

    def _evict(self, blocks: int) -> None:
        """Use up blocks from the front of the queue; there are enough."""
        queue, head = self._queue, self._head
        while blocks > head:
            blocks -= head
            if not queue:
                head, self._tail = self._tail, 0
                if not head and self._kept:
                    blocks -= self._trim(next(iter(self._kept)), blocks)
                continue
            entry = next(iter(queue))
            head = queue[entry]
            if isinstance(entry, Node):
                blocks -= self._trim(entry, blocks)
            else:
                del queue[entry]
        self._head = head - blocks

    def _trim(self, node: Node, blocks: int) -> int:
        """Give up at most so many blocks of a node, the last ones; returns how many."""
        ends = node.ends
        left = ends[-1] - node.start - blocks
        if left <= 0:
            blocks += left
        if self.evicted is not None:
            self.evicted(node, blocks)
        if node.pins:
            self.kept -= blocks
        if left <= 0:
            if node.pins:
                del self._kept[node]
            else:
                del self._queue[node]
            if node.parent is not None:
                del node.parent.children[node.labels[0]]
            return blocks
        end = node.start + left
        i = bisect_left(ends, end)
        del ends[i:], node.labels[i + 1 :]
        ends.append(end)
        return blocks


def tail_key(request: Request) -> int:
    """The key of all that follows a request's content: its reply's, or one that only itself can ask for."""
    return request.reply or -1 - request.id
