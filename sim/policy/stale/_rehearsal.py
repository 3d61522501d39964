"""Whether a bound on staleness can ever fill a batch: the loop without times, played for a few versions before the run.

All that may start starts and ends at once, in order; every accepted group waits in the buffer; the trainer takes what it wants as soon as
it is there. Whoever is stuck then is stuck with any times, and as nothing is known of a gate but its contract, one that is dropped in is
held to it too. Groups pass the filter at even distances: of share 0.25, each fourth.
"""
from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sim.core.ledger import Course, Ledger
from sim.core.rollout import ACCEPTED, DONE, PARTIAL, PENDING, REJECTED, RUNNING, SCORED, STALE_DROPPED, Group, Prompt

if TYPE_CHECKING:
    from sim.policy.stale.base import Staleness

VERSIONS = 3
PATIENCE = 1000


def rehearse(gate: Staleness, course: Course) -> str:
    """Why the trainer would wait for ever, or an empty string. The gate is not changed."""
    if course.cap and course.cap < course.take:
        return f"the buffer holds {course.cap} groups and the trainer takes {course.take} at a time: it would wait for ever"
    gate = copy.deepcopy(gate)
    ledger = Ledger(course.take * course.trigger, course.samples, course.servers)
    ended, since, takes = 0, 0, 0
    while ledger.version < VERSIONS:
        room = gate.may_start(ledger).groups
        for _ in range(room):
            group = Group(ended, Prompt(ended), 1)
            ledger.start(group)
            gate.started(ledger, group)
            ended, since = ended + 1, since + 1
            _finish(ledger, group, int(ended * course.accepts) > int((ended - 1) * course.accepts))
            if course.cap and ledger.queued > course.cap:
                ledger.move(next(ledger.live(ACCEPTED)), STALE_DROPPED)
        ready = [group for group in ledger.live(ACCEPTED) if gate.takes(ledger, group)][: course.take]
        if len(ready) == course.take:
            if gate.publishes == "on_take" and takes and takes % course.trigger == 0:
                _publish(gate, ledger)
            ledger.take(ready)
            takes, since = takes + 1, 0
            if gate.publishes == "after_update" and takes % course.trigger == 0:
                _publish(gate, ledger)
        elif not room or since > PATIENCE * course.take:
            return _why(ledger, course, len(ready), since)
    return ""


def _finish(ledger: Ledger, group: Group, accepted: bool) -> None:
    group.end(group.trajectories[0])
    ledger.move(group, DONE)
    ledger.move(group, SCORED)
    ledger.move(group, ACCEPTED if accepted else REJECTED)


def _publish(gate: Staleness, ledger: Ledger) -> None:
    ledger.version += 1
    for group, fate in gate.on_publish(ledger):
        runs = group.state in (RUNNING, PARTIAL)
        ledger.move(group, STALE_DROPPED if fate == "drop" or not runs else PENDING if fate == "restart" else PARTIAL)


def _why(ledger: Ledger, course: Course, ready: int, since: int) -> str:
    passed = f", of which {course.accepts:.3g} pass the filter," if course.accepts < 1 else ""
    if since > PATIENCE * course.take:
        return f"{since:,} groups{passed} do not make the {course.take} that the trainer takes at a time"
    wanted = f"the trainer waits for {course.take} groups to take and has {ready}"
    return f"at version {ledger.version} {wanted}, but no more than {since} may start before that{passed}: it would wait for ever"
