"""A recording made ready to replay: what follows what, waits scaled, and what is done about prompts that are too long."""
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from workloads.programs.contents import plan
from workloads.programs.replay import Cast
from workloads.programs.script import USER, Call, Recorded, Script


def cast(
    recorded: Recorded, sessions: Sequence[Script], scales: tuple[float, float, float], limit: tuple[int | None, str],
) -> tuple[Cast, list[Script], list[str]]:  # fmt: skip
    """What a replay goes by, the sessions that are replayed, and remarks.

    `scales`: of waits for tools and for users, and the longest wait, s. `limit`: tokens of prompt and answer at most, and what becomes of a
    session with a longer one (`end`, `drop`, `truncate`).
    """
    tools, users, longest = scales
    calls = recorded.calls
    factor = {cause: users if cause == USER else tools for cause in {call.cause for call in calls}}
    waits = [min(longest, factor[call.cause] * call.wait) for call in calls]
    nexts: list[list[int]] = [[] for _ in calls]
    for number, call in enumerate(calls):
        for before in call.after:
            nexts[before].append(number)
    prompts = [call.prompt for call in calls]
    kept, said = list(sessions), []
    most, how = limit
    if most is not None:
        long = {number for number, call in enumerate(calls) if call.prompt + call.output > most}
        if how == "drop":
            kept = [script for script in sessions if long.isdisjoint(range(script.first, script.first + script.size))]
            if len(kept) < len(sessions):
                said.append(f"left out {len(sessions) - len(kept)} of {len(sessions)} sessions, with calls longer than {most} tokens")
        elif long:
            cut = 0
            for number in sorted(long):
                room = most - calls[number].output if how == "truncate" else 0
                prompts[number] = max(0, room)
                cut += room > 0
            over = sum(not long.isdisjoint(range(script.first, script.first + script.size)) for script in sessions)
            if cut:
                said.append(f"cut {cut} of {len(calls)} prompts, so that no call is longer than {most} tokens")
            if cut < len(long):
                said.append(f"{over} of {len(sessions)} sessions reach a call longer than {most} tokens; those not cut end before it")
    return Cast(prompts, waits, _pauses(calls, nexts, factor), nexts, plan(recorded.shares), tools), kept, said


def _pauses(calls: Sequence[Call], nexts: Sequence[Sequence[int]], factor: dict[str, float]) -> list[float]:
    """Of each call, how long calls of the cause of the next of its agent waited on average: no cache policy is told the future."""
    idle: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        value = call.idle if call.idle == call.idle else call.wait
        if call.after:
            idle[call.cause].append(value)
    mean = {cause: factor[cause] * math.fsum(values) / len(values) for cause, values in idle.items()}
    found = []
    for number, call in enumerate(calls):
        follows = next((one for one in nexts[number] if calls[one].agent == call.agent), None)
        found.append(math.nan if follows is None else mean[calls[follows].cause])
    return found
