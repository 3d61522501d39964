"""100,000 flows on a fabric of 1,000 GPUs: what it costs to keep every rate max-min fair.

125 hosts of 8 GPUs, a 400 Gbit/s card for each GPU. `rails`: cards of the same number meet in one switch, without oversubscription.
`spine`: hosts in leaves of 16 or fewer, each with half of its hosts' bandwidth into the spine. Flows begin at random (Poisson), between
random GPUs, of sizes spread over a decade; `hot`: one in five goes to one of four hosts.
"""
from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import NamedTuple

from sim.core.tables import tables
from sim.physics.topology import Link, Path
from sim.world.clock import Clock
from sim.world.network import Cargo, Network

HOSTS, CARDS, LEAF, SPEED = 125, 8, 16, 50e9


class Load(NamedTuple):
    """`pace`: flows a second; `mean`: bytes of a flow; `wide`: each flow uses all cards of its hosts."""

    fabric: str
    pace: float
    flows: int = 100_000
    hot: float = 0.0
    mean: float = 1e9
    wide: bool = False


def links() -> list[Link]:
    """Cards out, cards in, leaves up, leaves down."""
    cards = [Link(f"h{host}.{way}{card}", "nic", SPEED, 0.0) for way in ("out", "in") for host in range(HOSTS) for card in range(CARDS)]
    uplinks = [min(LEAF, HOSTS - leaf * LEAF) * CARDS * SPEED / 2 for leaf in range(-(-HOSTS // LEAF))]
    return cards + [Link(f"leaf{leaf}.{way}", "leaf", speed, 0.0) for way in ("up", "down") for leaf, speed in enumerate(uplinks)]


def path(load: Load, source: tuple[int, int], target: tuple[int, int]) -> Path:
    """Through the spine only between leaves; on rails the target's card is that of the source."""
    cards, leaves = 2 * HOSTS * CARDS, -(-HOSTS // LEAF)
    rail = source[1] if load.fabric == "rails" else target[1]
    through: list[tuple[int, float]] = []
    for way, host, card in ((0, source[0], source[1]), (1, target[0], rail)):
        numbers = range(CARDS) if load.wide else (card,)
        through += [(way * HOSTS * CARDS + host * CARDS + number, 1 / len(numbers)) for number in numbers]
    up, down = source[0] // LEAF, target[0] // LEAF
    if load.fabric == "spine" and up != down:
        through += [(cards + up, 1.0), (cards + leaves + down, 1.0)]
    return Path(tuple(link for link, _ in through), tuple(share for _, share in through), 5e-6)


def traffic(load: Load, seed: int = 1) -> Iterator[tuple[float, Cargo, Path]]:
    """When each flow is sent, and what."""
    draw, now = random.Random(seed), 0.0
    for _ in range(load.flows):
        now += draw.expovariate(load.pace)
        source = draw.randrange(HOSTS), draw.randrange(CARDS)
        target = draw.randrange(4 if draw.random() < load.hot else HOSTS), draw.randrange(CARDS)
        if target[0] == source[0]:
            target = (source[0] + 1) % HOSTS, target[1]
        size = load.mean * 10 ** draw.uniform(-0.6, 0.4)
        yield now, Cargo("kv", f"host{source[0]}", f"host{target[0]}", size), path(load, source, target)


def simulate(load: Load) -> dict[str, float]:
    """CPU seconds, and how many flows were under way at once."""
    env, facts, plan = Clock(), tables(), list(traffic(load))
    network = Network(env, links(), facts)
    under, most, area, since = 0, 0, 0.0, 0.0

    def count(change: int) -> None:
        nonlocal under, most, area, since
        area += under * (env.now - since)
        under, since = under + change, env.now
        most = max(most, under)

    def send(number: int) -> None:
        _, cargo, way = plan[number]
        count(1)
        network.send(cargo, way, lambda: count(-1))
        if number + 1 < len(plan):
            env.alarm(plan[number + 1][0] - env.now, send, number + 1)

    began = time.process_time()
    env.alarm(plan[0][0], send, 0)
    env.advance()
    network.close(env.now)
    spent = time.process_time() - began
    return {"run_cpu_s": spent, "flows_per_cpu_s": load.flows / spent, "mean_under_way": area / env.now, "most_under_way": most}
