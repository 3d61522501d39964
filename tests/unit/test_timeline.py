"""Timelines: what the file holds is what the tables say, in a form that viewers take, and in a stated number of events."""
from __future__ import annotations

import numpy as np
import pytest
import test_lending
import test_report_agents
from lent import driven
from lent import scenario as lent
from perfetto import Timeline
from rl_runs import played
from synthetic import put, queue, serve

import sim
from sim.study.timeline.sizes import LEAST

MICRO = 1e6
CHAT = {
    "name": "chat", "seed": 2, "model": "Qwen/Qwen2.5-0.5B",
    "cluster": {"pools": [{"gpu": "l40s", "replicas": 2, "engine": {"num_gpu_blocks_override": 300, "max_model_len": 4096}}]},
    "workloads": [{"kind": "poisson", "rate": 12, "num_requests": 300,
                   "lengths": {"kind": "uniform", "input": [100, 900], "output": [50, 900]}}],
}  # fmt: skip
SPLIT = {
    "name": "split", "model": "meta-llama/Llama-3.1-8B",
    "workloads": [{"kind": "poisson", "rate": 10, "num_requests": 60, "lengths": {"kind": "fixed", "input": 900, "output": 50}}],
    "cluster": {"network": {"fabric": {"preset": "hgx_leaf_spine"}, "hosts": [{"gpu": "h100_sxm", "count": 2}]}, "pools": [
        {"name": "first", "gpu": "h100_sxm", "role": "prefill"}, {"name": "then", "gpu": "h100_sxm", "role": "decode"}]},
}  # fmt: skip
CLOUD = {
    "name": "cloud", "model": "meta-llama/Llama-3.1-8B", "duration": "300s",
    "cluster": {"pools": [{"gpu": "h100_sxm", "start": {"weights": {"bandwidth": "5GB/s"}}, "autoscale": {
        "min": 1, "max": 5, "every": "15s", "policy": {"kind": "hpa", "target": {"concurrency": 2}}}}]},
    "workloads": [{"kind": "poisson", "rate": 4, "lengths": {"kind": "fixed", "input": 500, "output": 300}}],
}  # fmt: skip


@pytest.fixture(scope="module")
def chat():
    result = sim.run(CHAT)
    assert result.tables["stalls"]["request"].size, "some must be preempted"
    return result


@pytest.fixture(scope="module")
def crew():
    return sim.run(test_report_agents.scenario())


def drawn(result, folder, **sizes):
    """The timeline of a result, checked."""
    timeline = Timeline(result.trace(folder / "trace.json.gz", **sizes))
    timeline.check()
    return timeline


RUNS = {
    "chat": lambda: sim.run(CHAT), "split": lambda: sim.run(SPLIT), "cloud": lambda: sim.run(CLOUD), "rounds": played,
    "colocated": lambda: played(colocated=True),
    "gated": lambda: sim.run(test_report_agents.scenario(gate={"kind": "kv_capacity", "fill": 0.5})),
    "async": lambda: played(mode="async", staleness={"kind": "areal", "eta": 1}),
    "lent": lambda: driven(lent({"pool": "serve", "lend": {"how": "preempt"}}), test_lending.to_and_fro()),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_viewers_take_it_within_any_limit(name, tmp_path):
    result = RUNS[name]()
    wanted: list[dict[str, int]] = [{}, {"events": LEAST, "requests": 20}, {"events": LEAST, "requests": 0}]
    whole, little, least = (drawn(result, tmp_path, **sizes) for sizes in wanted)
    assert whole.notes["stretches"] == {"shown": len(result.tables["stretches"]), "of": len(result.tables["stretches"]),
                                        "merged_over_s": None, "one_replica_in": 1}  # fmt: skip
    assert little.notes["events"] <= LEAST
    assert least.notes["events"] <= LEAST
    assert not any(process.startswith(("requests", "agents", "sandboxes, one")) for process in least.processes.values())


# -- engines ---------------------------------------------------------------
@pytest.mark.parametrize("limit", [2_000_000, LEAST])
def test_slices_add_up_to_the_stretches(chat, tmp_path, limit):
    result = queue(0.7, 9000, replicas=3)
    table, timeline = result.tables["stretches"], drawn(result, tmp_path, events=limit)
    for replica in range(3):
        mine, slices = table["replica"] == replica, timeline.slices["pool serve", f"serve {replica}"]
        args = [one["args"] for one in slices]
        assert sum(one["steps"] for one in args) == table["steps"][mine].sum()
        assert sum(one.get("tokens", 0) for one in args) == pytest.approx(table["tokens"][mine].sum())
        assert sum(one.get("prompt_tokens", 0) for one in args) == table["prefill_tokens"][mine].sum()
        assert sum(one.get("stretches", 1) for one in args) == mine.sum()
        busy = sum(one["args"].get("busy_s", one["dur"] / MICRO) for one in slices)
        assert busy == pytest.approx(table["seconds"][mine].sum(), rel=1e-3)
        assert (len(slices) < mine.sum()) == (limit == LEAST)


def test_slices_are_the_stretches(chat, tmp_path):
    table, timeline = chat.tables["stretches"], drawn(chat, tmp_path)
    for replica in range(2):
        mine, slices = table["replica"] == replica, timeline.slices["pool serve", f"serve {replica}"]
        assert [one["ts"] / MICRO for one in slices] == pytest.approx(table["start"][mine].tolist(), abs=1.01e-6)
        assert [one["dur"] / MICRO for one in slices] == pytest.approx(table["seconds"][mine].tolist(), abs=2.01e-6)
        kinds = np.where(table["prefills"][mine] == 0, "decode", np.where(table["decoders"][mine] == 0, "prefill", "mixed"))
        assert [one["name"] for one in slices] == kinds.tolist()


def at(counter, time):
    """The value of a counter at a time: the last one told by then."""
    times = [when for when, _ in counter]
    return counter[int(np.searchsorted(times, time, side="right")) - 1][1]


def test_counters_are_those_of_the_tables(chat, tmp_path):
    table, timeline = chat.tables["stretches"], drawn(chat, tmp_path)
    blocks, pool = chat.tables["replicas"]["blocks"], "pool serve"
    for replica in range(2):
        name, mine = f"serve {replica}", np.flatnonzero(table["replica"] == replica)
        assert np.diff(table["waiting"][mine]).any()
        for row in mine[:: max(len(mine) // 200, 1)].tolist():
            start, end = table["start"][row], table["start"][row] + table["seconds"][row]
            inside = (start + end) / 2 * MICRO
            batch = table["decoders"][row] + table["prefills"][row]
            assert at(timeline.counters[pool, name, "batch"], inside) == batch
            assert at(timeline.counters[pool, name, "running"], inside) == batch + table["paused"][row]
            assert at(timeline.counters[pool, name, "waiting"], inside) == table["waiting"][row]
            used = table["blocks"][row] / blocks[replica]
            assert at(timeline.counters[pool, name, "kv"], end * MICRO + 1) == pytest.approx(used, abs=1e-5)
        for key in ("batch", "running", "waiting"):
            assert timeline.counters[pool, name, key][-1][1] == 0
    width = chat.meta["sim_s"] / 500
    for key, column in (("output", "tokens"), ("prompt", "prefill_tokens")):
        rates = [value for _, value in timeline.counters[pool, "tokens/s", key]]
        assert sum(rates) * width == pytest.approx(table[column].sum(), rel=1e-3)


def test_a_queue_empties_between_requests(tmp_path):
    timeline = drawn(serve(np.array([0.0, 5.0]), np.array([10, 10])), tmp_path)
    batch = timeline.counters["pool serve", "serve 0", "batch"]
    assert [value for _, value in batch] == [1, 1, 0, 1, 0]
    assert [time for time, _ in batch][2:4] == pytest.approx([110_040, 5_000_000], abs=100)


def test_of_more_replicas_than_there_is_room_for_some_are_shown(tmp_path):
    timeline = drawn(serve(np.arange(8000) / 1000, np.full(8000, 20), replicas=4000), tmp_path, events=LEAST, requests=10)
    every = timeline.notes["stretches"]["one_replica_in"]
    assert timeline.notes["events"] <= LEAST
    assert every > 1
    assert len(timeline.slices) == -(-4000 // every)


def test_merged_counters_are_the_largest(tmp_path):
    result = queue(0.9, 9000)
    table, timeline = result.tables["stretches"], drawn(result, tmp_path, events=LEAST)
    kv = [value for _, value in timeline.counters["pool serve", "serve 0", "kv"]]
    assert max(kv) == pytest.approx(table["blocks"].max() / result.tables["replicas"]["blocks"][0], abs=1e-5)


def test_a_pause_keeps_what_waits(tmp_path):
    result = serve(np.array([0.0, 5.0]), np.array([10, 10]))
    end = float(result.tables["requests"]["last_token"][0])
    put(result.tables["pauses"], (0, end, 3.0, 0, 1))
    timeline = drawn(result, tmp_path)
    batch, running = (timeline.counters["pool serve", "serve 0", key] for key in ("batch", "running"))
    assert [at(counter, 1.5e6) for counter in (batch, running)] == [0, 1]
    assert [one["name"] for one in timeline.slices["pool serve", "serve 0"]] == ["paused: update", "prefill", "decode", "prefill", "decode"]


def test_stages_of_starts_are_on_a_thread_of_their_own(tmp_path):
    result = sim.run(CLOUD)
    starts, timeline = result.tables["starts"], drawn(result, tmp_path)
    lives = {thread: slices for (_, thread), slices in timeline.slices.items() if thread.endswith("start and end")}
    names = [starts.labels["stage"][code] for code in starts["stage"]]
    assert sorted(one["name"] for slices in lives.values() for one in slices) == sorted(names)
    ready = timeline.counters["pool serve", "replicas", "ready"]
    assert [value for _, value in ready] == result.tables["scaling"]["ready"].tolist()


# -- requests --------------------------------------------------------------
def test_requests_with_their_phases(chat, tmp_path):
    timeline, table = drawn(chat, tmp_path), chat.tables["requests"]
    spells = {spell[0]["args"]["request"]: spell for spell in timeline.spells["requests"]}
    assert len(spells) == len(table) == 300
    stalled = 0
    for row, number in enumerate(table["request"].tolist()):
        spell = spells[number]
        begins = {event["name"]: event["ts"] / MICRO for event in spell if event["ph"] == "b"}
        times = [table[name][row] for name in ("arrival", "admitted", "first_token", "last_token")]
        wanted = dict(zip(("poisson", "prefill", "decode"), times[:3], strict=True))
        assert {name: begins[name] for name in wanted} == pytest.approx(wanted, abs=1.01e-6)
        assert spell[-1]["ts"] / MICRO == pytest.approx(times[3], abs=1.01e-6)
        assert spell[0]["args"]["output_tokens"] == table["output_tokens"][row]
        stalled += sum(event["name"] == "stalled" for event in spell) // 2
    assert stalled == len(chat.tables["stalls"])


def test_requests_are_taken_evenly(chat, tmp_path):
    timeline = drawn(chat, tmp_path, requests=100)
    [(process, spells)] = [(name, spells) for name, spells in timeline.spells.items() if name.startswith("requests")]
    assert process == "requests, 1 in 3"
    assert sorted(spell[0]["args"]["request"] for spell in spells) == list(range(0, 300, 3))
    assert timeline.notes["requests"] == {"shown": 100, "of": 300}


def test_unfinished_requests_last_to_the_end(tmp_path):
    timeline = drawn(serve(np.array([0.0, 0.1]), np.array([10, 1000]), horizon=2.0), tmp_path)
    spell = next(spell for spell in timeline.spells["requests"] if spell[0]["args"]["status"] == "unfinished")
    assert [event["name"] for event in spell] == ["poisson", "queue", "queue", "poisson"]
    assert spell[-1]["ts"] == 2 * MICRO


# -- agents, tools, sandboxes ------------------------------------------------
def test_agents_do_on_their_lanes_what_the_tables_say(crew, tmp_path):
    timeline, table = drawn(crew, tmp_path), crew.tables["agents"].to_pandas().set_index("agent")
    seen = 0
    for (process, _), slices in timeline.slices.items():
        if process != "agents":
            continue
        lives = [one for one in slices if "agent" in one.get("args", {})]
        for life in lives:
            inside = [one for one in slices if one is not life and life["ts"] <= one["ts"] < life["ts"] + life["dur"]]
            row, spent = table.loc[life["args"]["agent"]], {}
            for one in inside:
                spent[one["name"]] = spent.get(one["name"], 0) + one["dur"] / MICRO
            assert sum(one["name"] == "LLM" for one in inside) == row["calls"]
            assert spent.get("LLM", 0.0) == pytest.approx(row["llm_s"], abs=1e-4)
            assert spent.get("user thinks", 0.0) == pytest.approx(row["think_s"], abs=1e-4)
            assert spent.get("waits for agents", 0.0) == pytest.approx(row["join_s"], abs=1e-4)
            seen += 1
    assert seen == len(table) == timeline.notes["agents"]["shown"]
    assert len(timeline.arrows) == (table["parent"] >= 0).sum()
    assert len(timeline.spells["tool calls"]) == len(crew.tables["tool_calls"])


def test_sessions_come_whole(crew, tmp_path):
    timeline, table = drawn(crew, tmp_path, requests=5), crew.tables["agents"].to_pandas()
    shown = [one["args"] for (process, _), slices in timeline.slices.items() if process.startswith("agents") for one in slices
             if "root" in one.get("args", {})]  # fmt: skip
    roots = {args["root"] for args in shown}
    assert len(roots) == timeline.notes["agents"]["sessions"] <= 5
    assert sorted(args["agent"] for args in shown) == sorted(table["agent"][table["root"].isin(roots)])


def test_sandboxes_are_counted(crew, tmp_path):
    timeline, table = drawn(crew, tmp_path), crew.tables["sandboxes"].to_pandas()
    granted, released = (table[name].to_numpy() for name in ("granted", "released"))
    for time in np.linspace(1.0, crew.meta["sim_s"] - 1, 40):
        held = int(((granted <= time) & (time < released)).sum())
        assert at(timeline.counters["sandboxes box", "held", "value"], time * MICRO) == held
    spells = timeline.spells["sandboxes, one by one"]
    assert len(spells) == len(table)
    assert {event["name"] for spell in spells for event in spell} == {"box", "placed", "booted", "granted"}


# -- networks, trainers, pools that share -----------------------------------------
def test_what_moves_and_how_full_links_are(tmp_path):
    result = sim.run(SPLIT)
    timeline, facts = drawn(result, tmp_path), result.tables
    assert len(timeline.spells["keys and values on their way"]) == len(facts["transfers"]) == 60
    assert len(timeline.spells["transfers over the network"]) == len(facts["flows"])
    usage, links = facts["usage"].to_pandas(), facts["links"].to_pandas()
    for row in usage[usage["seconds"] > 1e-5].iloc[::7].itertuples():
        link = links.iloc[row.link]
        used = 100 * row.bytes / (link.capacity * row.seconds)
        counter = timeline.counters["network links", str(link.link), "%"]
        assert at(counter, (row.start + row.seconds / 2) * MICRO) == pytest.approx(used, abs=1e-3)
    for (process, *_), counter in timeline.counters.items():
        assert process != "network links" or counter[-1][1] == 0


def test_trainers_and_publications(tmp_path):
    result = played()
    timeline, facts = drawn(result, tmp_path), result.tables
    states = timeline.slices["trainer learner", "states"]
    spent = {}
    for one in states:
        spent[one["name"]] = spent.get(one["name"], 0.0) + one["dur"] / MICRO
    table = facts["train_states"].to_pandas()
    wanted = (table["end"] - table["start"]).groupby(table["state"].astype(str)).sum()
    assert spent == pytest.approx(wanted.to_dict(), abs=1e-4)
    run = "reinforcement learning: run"
    assert [one["name"] for one in timeline.slices[run, "steps"]] == ["version 1", "version 2", "version 3"]
    assert [one["name"] for one in timeline.slices[run, "publications"]] == [f"version {n} goes out" for n in (1, 2, 3)]
    # Two replicas stand still for each publication, and an arrow leads to each.
    ends = [(timeline.processes[arrow[1]["pid"]], timeline.threads[arrow[1]["pid"], arrow[1]["tid"]]) for arrow in timeline.arrows.values()]
    assert sorted(ends) == [("pool rollouts", "rollouts 0")] * 3 + [("pool rollouts", "rollouts 1")] * 3
    groups = facts["rl_groups"].to_pandas()
    for time in np.linspace(1, result.meta["sim_s"] - 1, 30):
        running = ((groups["begun"] <= time) & ~(groups["done"] <= time)).sum()
        assert at(timeline.counters[run, "groups running", "value"], time * MICRO) == running


def test_gpus_change_hands(tmp_path):
    result = RUNS["lent"]()
    timeline = drawn(result, tmp_path)
    spells = timeline.spells["GPUs that change hands"]
    kinds = result.tables["lendings"].to_pandas()["kind"].astype(str)
    assert [spell[0]["name"] for spell in spells] == kinds.tolist()
    assert spells[0][0]["args"]["giver"].startswith("serve")
