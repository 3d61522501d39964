"""A workload whose callers do not wait for ever: time-outs, users who leave, retries with a budget, and hedged requests.

A call is what a caller asks for. It is tried: a request is sent, by and by further copies of it where the caller hedges, and the copy with
the first token goes on alone. A try ends with an answer, or is timed out or turned away and perhaps made again. Every request sent has a
row in `attempts`; the caller's event succeeds with the request that answered, or with the last one where none did.

What a caller learns comes on whole nanoseconds, as answers do, and what it does when its patience ends half a nanosecond apart from them
(`world/timer.py`): an answer that comes at its deadline is in time. Luck belongs to the call's number, so that what-ifs share it.
"""
from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from simpy import Event

from sim.core.content import Content
from sim.core.request import Request
from sim.core.rng import Keyed
from sim.spec.patience import Patience, Wait
from sim.world.timer import Answer, Deadline

if TYPE_CHECKING:
    from sim.world.cluster import World

FIRST, RETRY, HEDGE = range(3)
ANSWERED, LATE, REJECTED, TIMEOUT, ABANDONED, OPEN = range(6)
# Rejected requests have their reason already.
REASONS = {LATE: "hedged", TIMEOUT: "timeout", ABANDONED: "abandoned"}
OUTCOMES = {REJECTED: "rejected", TIMEOUT: "timeout", ABANDONED: "abandoned"}
LAST_SEEN = 1000


class Budget:
    """So many extra requests as `share` of the calls within the last `window` seconds; None: without limit."""

    def __init__(self, share: float | None, window: float):
        self._share, self._window = share, window
        self._calls: deque[float] = deque()
        self._spent: deque[float] = deque()

    def called(self, now: float) -> None:
        """A caller asks for something new."""
        if self._share is not None:
            self._calls.append(now)

    def spend(self, now: float) -> bool:
        """Whether one more may be sent; then it counts as sent."""
        if self._share is None:
            return True
        for times in (self._calls, self._spent):
            while times and times[0] <= now - self._window:
                times.popleft()
        if len(self._spent) + 1 > self._share * len(self._calls):
            return False
        self._spent.append(now)
        return True


class Seen:
    """The last times to first token, seconds, of a workload's requests; of those called off before they had one, how long they waited where
    that was longer than the copy that won did. Without these the percentile would sink, for it is the slow that are called off.
    """

    def __init__(self, percentile: float):
        self._part = percentile / 100
        self._times: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """One more."""
        self._times.append(seconds)
        insort(self._sorted, seconds)
        if len(self._times) > LAST_SEEN:
            del self._sorted[bisect_left(self._sorted, self._times.popleft())]

    def percentile(self) -> float | None:
        """Their percentile; None while they are too few to have one."""
        count = len(self._sorted)
        return self._sorted[int(self._part * count)] if count * (1 - self._part) >= 1 else None


class Call:
    """What one caller asked for. `copies` are under way; `tries` and `waits` number the try and the stretch of patience that timers are
    set for; `heard` is whether this try has a first token, `last` what the try before it came to.
    """

    __slots__ = ("copies", "done", "extra", "heard", "last", "lengths", "number", "over", "root", "tries", "waits")

    def __init__(self, number: int, request: Request, done: Event | None):
        self.number, self.done, self.last, self.lengths = number, done, request, (request.prompt, request.output)
        self.root = -1
        self.tries = self.waits = self.extra = 0
        self.heard = self.over = False
        self.copies: list[Request] = []


class Sent(NamedTuple):
    """A request under way: for which call, why (a kind of `attempts`), and since when, s."""

    call: Call
    kind: int
    start: float


class Attempts:
    """The front door as the callers of one workload, `name`, use it."""

    def __init__(self, world: World, name: str, patience: Patience):
        self._patience, self._name, self._seed = patience, name, world.scenario.seed
        self._env, self._door, self._keys, self._overhead = world.env, world.door, world.keys, world.recorder.overhead
        self._append = world.recorder.tables["attempts"].append
        retries, hedge = patience.retries, patience.hedge
        self._retries, self._hedge = retries, hedge
        self._allowed = Budget(retries.budget, retries.window) if retries else None
        self._doubled = Budget(hedge.budget, hedge.window) if hedge else None
        self._seen = Seen(hedge.percentile) if hedge and hedge.percentile else None
        self._watches = patience.first_token_timeout is not None or hedge is not None
        self._luck = {what: Keyed(self._seed, f"{name}.{what}") for what in ("timeout", "patience", "backoff")}
        self._count = self.pending = 0
        self._open: dict[Request, Sent] = {}

    def submit(self, request: Request) -> None:
        """Take a caller's request."""
        self._begin(request, None)

    def call(self, request: Request) -> Event:
        """Submit; the event succeeds with the request that answers, or with the last one when none does."""
        done = self._env.event()
        self._begin(request, done)
        return done

    def close(self) -> None:
        """The clock has stopped: note what is under way."""
        for request, sent in self._open.items():
            self._append((request.id, sent.call.root, sent.kind, OPEN, sent.start, float("nan")))

    # -- a call ------------------------------------------------------------
    def _begin(self, request: Request, done: Event | None) -> None:
        now = self._env._now
        call = Call(self._count, request, done)
        self._count += 1
        self.pending += 1
        for budget in (self._allowed, self._doubled):
            if budget is not None:
                budget.called(now)
        if self._retries is not None or self._hedge is not None:
            self._name_prompt(request)
        self._be_patient(call)
        self._try(call, request, FIRST)

    def _try(self, call: Call, request: Request, kind: int) -> None:
        call.tries += 1
        call.extra, call.heard = 0, False
        self._send(call, request, kind)
        if self._patience.timeout is not None:
            seconds = self._drawn(self._patience.timeout, "timeout", call, call.tries)
            Deadline(self._env, self._env._now + seconds, (call, call.tries), self._timed_out)
        self._double_later(call)

    def _send(self, call: Call, request: Request, kind: int) -> None:
        self._open[request] = Sent(call, kind, self._env._now)
        if self._watches:
            request.watch = self._token
        answer = self._door.call(request, [copy.replica for copy in call.copies])
        call.copies.append(request)
        if call.root < 0:
            call.root = request.id
        assert answer.callbacks is not None
        answer.callbacks.append(self._answered)

    def _end(self, call: Call, request: Request) -> None:
        call.over = True
        self.pending -= 1
        if call.done is not None:
            call.done.succeed(request)

    def _note(self, request: Request, outcome: int) -> None:
        sent = self._open.pop(request)
        self._append((request.id, sent.call.root, sent.kind, outcome, sent.start, self._env._now))

    # -- what callers hear ------------------------------------------------------------
    def _token(self, request: Request) -> None:
        """A first token is out; it reaches the caller as an answer would."""
        if request in self._open:
            Answer(self._env, self._env._now + self._overhead(request), request, self._heard)

    def _heard(self, request: Request) -> None:
        sent = self._open.get(request)
        if sent is None:
            return
        call, call.heard = sent.call, True
        if self._seen is not None:
            self._seen.add(self._env._now - sent.start)
        others = [copy for copy in call.copies if copy is not request]
        call.copies = [request]
        self._unseen(copy for copy in others if self._open[copy].start < sent.start)
        self._call_off(others, LATE)

    def _answered(self, event: Any) -> None:
        request: Request = event.value
        sent = self._open.get(request)
        if sent is None:
            return
        call = sent.call
        call.copies.remove(request)
        if request.last == request.last:
            self._note(request, ANSWERED)
            self._end(call, request)
            return
        self._note(request, REJECTED)
        if not call.copies:
            self._again(call, REJECTED, request)

    # -- what callers do ------------------------------------------------------------
    def _timed_out(self, what: tuple[Call, int]) -> None:
        call, tries = what
        if not call.over and call.tries == tries and call.copies:
            self._give_up(call, TIMEOUT)

    def _bored(self, what: tuple[Call, int]) -> None:
        call, waits = what
        if call.over or call.waits != waits or call.heard:
            return
        if call.copies:
            self._give_up(call, ABANDONED)
        elif self._retries is None or OUTCOMES[ABANDONED] not in self._retries.outcomes:
            # Between two tries: nothing is under way, and there will be no other.
            self._end(call, call.last)

    def _give_up(self, call: Call, outcome: int) -> None:
        copies, call.copies = call.copies, []
        if not call.heard:
            self._unseen(copies)
        self._call_off(copies, outcome)
        self._again(call, outcome, copies[-1])

    def _unseen(self, requests: Iterable[Request]) -> None:
        """The first tokens of these would have come later than now."""
        if self._seen is not None:
            for request in requests:
                self._seen.add(self._env._now - self._open[request].start)

    def _call_off(self, requests: list[Request], outcome: int) -> None:
        for request in requests:
            self._note(request, outcome)
            self._door.cancel(request, REASONS[outcome])

    def _again(self, call: Call, outcome: int, request: Request) -> None:
        """A try ended without an answer: the next one is made after a while, or the call has come to nothing."""
        retries, allowed = self._retries, self._allowed
        tired = retries is None or OUTCOMES[outcome] not in retries.outcomes or call.tries > retries.max
        if tired or retries is None or allowed is None or not allowed.spend(self._env._now):
            self._end(call, request)
            return
        pause = min(retries.backoff.first * retries.backoff.factor ** min(call.tries - 1, 100), retries.backoff.most)
        luck = float(self._luck["backoff"].at(call.number, call.tries, 1)[0])
        pause *= 1.0 + retries.backoff.jitter * (2.0 * luck - 1.0)
        again = call.heard or outcome == ABANDONED
        call.last = request
        Answer(self._env, self._env._now + pause, request, lambda last: self._retry(call, last, again))

    def _retry(self, call: Call, last: Request, patient: bool) -> None:
        """`patient`: the user begins to wait anew, having seen something or come back."""
        if call.over:
            return
        if patient:
            self._be_patient(call)
        self._try(call, self._copy(call, last), RETRY)

    def _be_patient(self, call: Call) -> None:
        if self._patience.first_token_timeout is not None:
            call.waits += 1
            seconds = self._drawn(self._patience.first_token_timeout, "patience", call, call.waits)
            Deadline(self._env, self._env._now + seconds, (call, call.waits), self._bored)

    def _double_later(self, call: Call) -> None:
        """Where the caller hedges, another copy is due after a while."""
        hedge = self._hedge
        if hedge is None or call.extra >= hedge.max:
            return
        after = self._seen.percentile() if self._seen is not None else float(hedge.after)
        if after is not None:
            Answer(self._env, self._env._now + after, call.copies[0], self._double_of(call))

    def _double_of(self, call: Call) -> Callable[[Request], None]:
        tries = call.tries

        def double(request: Request) -> None:
            assert self._doubled is not None
            if call.over or call.tries != tries or call.heard or not call.copies or not self._doubled.spend(self._env._now):
                return
            call.extra += 1
            self._send(call, self._copy(call, request), HEDGE)
            self._double_later(call)

        return double

    # -- requests ------------------------------------------------------------
    def _name_prompt(self, request: Request) -> None:
        """All copies of a prompt can find each other in a cache: what nobody has named in it gets a name."""
        content = request.content
        if request.reply or (content is not None and content.ends and content.ends[-1] >= request.prompt):
            return
        before = content or Content((), ())
        request.content = Content((*before.keys, self._keys(1)), (*before.ends, request.prompt), before.common)

    def _copy(self, call: Call, request: Request) -> Request:
        prompt, output = call.lengths
        other = Request(-1, self._env._now, prompt, output, request.workload, request.session)
        other.service, other.priority, other.adapter, other.pause = request.service, request.priority, request.adapter, request.pause
        other.content, other.reply, other.program, other.ahead = request.content, request.reply, request.program, request.ahead
        return other

    def _drawn(self, wait: Wait, what: str, call: Call, turn: int) -> float:
        if wait.median is not None and wait.median == wait.p99:
            return wait.median
        return wait.at(float(self._luck[what].at(call.number, turn, 1)[0]))
