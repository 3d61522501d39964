"""The nodes of the prefix cache's tree (`radix.py`): runs of blocks with the same holders, and how a path is matched against them."""
from __future__ import annotations

from typing import Any

Label = int | tuple[int, ...] | None


class Node:
    """A run of blocks, from `start` to `ends[-1]` counted from the front of the prompt, that `refs` requests hold and none in part.

    Piece i of it is named by `labels[i]` and ends before block `ends[i]`. `children` go on where it ends, by their first labels. `pins`
    are those who want it kept, `piece` is what lower tiers call the block before it (`tiers.py`).
    """

    __slots__ = ("children", "ends", "labels", "parent", "piece", "pins", "refs", "start")

    def __init__(self, parent: Node | None, start: int, labels: list[Label], ends: list[int]):
        self.parent, self.start, self.labels, self.ends = parent, start, labels, ends
        self.children: dict[Label, Node] = {}
        self.refs = self.pins = 0
        self.piece: Any = None


def merged(keys: list[int], ends: list[int], at: int) -> tuple[list[Label], list[int]]:
    """Pieces behind block `at` for segments of which some complete no block: their keys go into the next label."""
    labels: list[Label] = []
    stops: list[int] = []
    short: list[int] = []
    for key, end in zip(keys, ends, strict=True):
        if end == at:
            short.append(key)
        else:
            labels.append((*short, key) if short else key)
            stops.append(end)
            short, at = [], end
    return labels, stops


def match(node: Node, at: int, labels: list[Label], ends: list[int]) -> tuple[list[Node], int]:
    """The nodes behind `node`, which ends before block `at`, that hold the first of these pieces, and the block before which the match
    ends, in the last of them.
    """
    nodes: list[Node] = []
    i, count = 0, len(labels)
    label = labels[0] if labels else None
    while i < count:
        child = node.children.get(label)
        if child is None:
            return nodes, at
        nodes.append(child)
        node, there, stops = child, child.labels, child.ends
        same = len(there)
        if same > 1 and (there[1:] != labels[i + 1 : i + same] or stops[:-1] != ends[i : i + same - 1]):
            same = next(k for k in range(1, same) if i + k == count or there[k] != labels[i + k] or stops[k - 1] != ends[i + k - 1])
        i += same - 1
        at, end = stops[same - 1], ends[i]
        if at > end or same < len(there):
            return nodes, min(at, end)
        if at < end:
            label = None
        else:
            i += 1
            label = labels[i] if i < count else None
    return nodes, at


def in_use(nodes: list[Node], end: int) -> int:
    """Blocks of a path from the root, up to block `end`, that somebody holds: whoever holds a node holds all before it."""
    last = 0
    for node in nodes:
        if not node.refs:
            break
        last = node.ends[-1]
    return last if last < end else end
