"""The decode group: all requests that get one token in every step, advanced together.

Members are never touched while they decode. The group is a count, the sum of tokens held, a heap of the steps at which members finish, and
a histogram of block phases: how many members need a new KV block at step s, by s mod block_size. Joining and leaving touch one member, so
cost follows what changed and never the size of the batch.
"""
from __future__ import annotations

from heapq import heappop, heappush

from sim.core.request import Request


class Decoders:
    """`step` counts the engine's steps; `held` is the sum of computed tokens over members, before the next step, and `pace` what it grows
    by in a step. `most` blocks at most are taken by a member in a step. `spare` blocks came back with those who left.
    """

    __slots__ = ("block_size", "count", "finish", "held", "most", "phases", "spare", "stale", "step")

    def __init__(self, block_size: int):
        self.block_size, self.most = block_size, 1
        self.step = self.count = self.stale = self.spare = 0
        self.held: float = 0
        self.finish: list[tuple[int, int, Request]] = []
        # Written twice over, so that any run of up to block_size phases is one slice.
        self.phases = [0] * (2 * block_size)

    @property
    def pace(self) -> float:
        return self.count

    def advance(self, steps: int) -> float:
        """So many steps have been made; returns the tokens that members got from them."""
        tokens = self.count * steps
        self.step += steps
        self.held += tokens
        return tokens

    def join(self, request: Request) -> None:
        """A request whose prompt is computed and whose newest token is not; it has output - generated tokens to go."""
        request.joined = step = self.step
        heappush(self.finish, (step + request.output - request.generated, request.order, request))
        self.count += 1
        self.held += request.computed
        self._count_phase(step - request.computed, 1)

    def leave(self, request: Request) -> None:
        """Bring a member up to date and let it go. Its entry in the heap stays behind, known as stale by its order."""
        steps = self.step - request.joined
        request.computed += steps
        request.generated += steps
        self.count -= 1
        self.held -= request.computed
        self._count_phase(request.joined - request.computed + steps, -1)
        request.joined = -1

    def finished(self) -> list[Request]:
        """Members whose last token came with the step just made, in order of admission; they have left the group."""
        finish, step = self.finish, self.step
        done: list[Request] = []
        while finish and finish[0][0] <= step:
            _, order, request = heappop(finish)
            if request.order == order:
                self.leave(request)
                done.append(request)
            else:
                self.stale -= 1
        return done

    def preempt(self, request: Request) -> None:
        """Let a member go before its end."""
        self.leave(request)
        self.stale += 1

    def out(self, request: Request, more: int) -> int:
        """Tokens a member has after so many steps more."""
        return request.generated + self.step - request.joined + more

    def until_finish(self) -> int:
        """Steps until the next member finishes."""
        finish = self.finish
        while self.stale and finish[0][2].order != finish[0][1]:
            heappop(finish)
            self.stale -= 1
        return finish[0][0] - self.step

    def blocks(self, steps: int) -> int:
        """KV blocks the members take over the next `steps` steps: whole turns of the wheel of phases, and a part of one."""
        size = self.block_size
        at = self.step % size
        if steps == 1:
            return self.phases[at]
        turns, rest = divmod(steps, size)
        return turns * self.count + sum(self.phases[at : at + rest])

    def fits(self, free: int, steps: int) -> int:
        """The most steps, up to `steps`, whose blocks are free."""
        size = self.block_size
        if (steps // size + 1) * self.count <= free:
            return steps
        turns, left = divmod(free, self.count)
        at = self.step % size
        fit = turns * size
        for phase in self.phases[at : at + size]:
            left -= phase
            if left < 0:
                break
            fit += 1
        return min(fit, steps)

    def _count_phase(self, phase: int, change: int) -> None:
        at = phase % self.block_size
        self.phases[at] += change
        self.phases[at + self.block_size] += change


class Reserved(Decoders):
    """Members whose blocks were all taken when they were admitted (contiguous KV): growing takes none."""

    __slots__ = ()

    def blocks(self, steps: int) -> int:
        return 0

    def fits(self, free: int, steps: int) -> int:
        return steps

    def _count_phase(self, phase: int, change: int) -> None:
        pass
