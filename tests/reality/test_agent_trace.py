"""Recorded agents replayed closed-loop: what is sent is what was recorded, and what a large enough cache finds is what was shared.

The recordings are those of ../shared/data/traces: Claude Code's sessions (callanjfox/kv-cache-tester, 438 sessions with 30,292 calls), SWE
tasks (agentcgroup) and mini-SWE-agent (LMCache).
"""
from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sim.study.run import run

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
# Of `shared_stats.json`: blocks of 64 tokens that a prompt has in common with an earlier one, of all blocks.
SHARE = 0.9628


def replay(files, **options):
    """Requests with agents beside them, of a replay on eight GPUs whose cache holds every session under way."""
    paths = [str(TRACES / name) for name in files]
    if not all(Path(path).exists() for path in paths):
        pytest.skip("no recordings at ../shared/data/traces")
    engine = {"max_num_seqs": 256, "max_model_len": 1_000_000, "block_size": 64, "enable_prefix_caching": True}
    pool = {"name": "serve", "gpu": "h100_sxm", "parallel": {"tp": 8}, "precision": "fp8", "engine": engine}
    load = {"kind": "agent_trace", "path": paths, "zero_tokens": "one", "concurrency": 4, **options}
    result = run({"name": "x", "seed": 1, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [load]})
    requests = pd.concat(pd.DataFrame({name: page[name] for name in (
        "session", "arrival", "last_token", "input_tokens", "output_tokens", "cached_tokens", "status", "overhead",
    )}) for page in result.tables["requests"].pages())  # fmt: skip
    agents = pd.concat(pd.DataFrame({"session": page["agent"], "root": page["root"]}) for page in result.tables["agents"].pages())
    return requests.merge(agents, on="session"), result.meta


@functools.cache
def coding():
    requests, meta = replay(["cc_weka_requests_A.parquet"], max_wait="60s")
    return requests, meta, pd.read_parquet(TRACES / "cc_weka_requests_A.parquet")


def test_a_large_cache_finds_what_the_recording_shares():
    requests, _, recorded = coding()
    assert len(requests) == len(recorded) == 30_292
    assert (requests["status"] == 0).all()
    found, prompts = int(requests["cached_tokens"].sum()), int(requests["input_tokens"].sum())
    assert prompts == recorded["input_tokens"].sum()
    assert found == 64 * recorded["prefix_blocks"].sum()
    assert found / 64 / recorded["n_blocks"].sum() == pytest.approx(SHARE, abs=5e-5)


def test_every_session_has_its_calls_and_tokens():
    requests, _, recorded = coding()
    recorded["output_tokens"] = recorded["output_tokens"].clip(lower=1)
    columns = ["input_tokens", "output_tokens"]
    ours = requests.groupby("root")[columns].agg(["count", "sum"])
    theirs = recorded.groupby("session_id", sort=False)[columns].agg(["count", "sum"])
    # Users begin sessions in the order of the file, and agents are numbered as they begin.
    assert (ours.to_numpy() == theirs.to_numpy()).all()


def test_contexts_grow_as_recorded():
    requests, _, recorded = coding()
    ours = requests.sort_values(["session", "arrival"], kind="stable").groupby("session")["input_tokens"].apply(list)
    times = recorded.sort_values("arrival_s", kind="stable").groupby(["session_id", "agent_id"])
    theirs = times["input_tokens"].apply(list)
    assert sorted(ours) == sorted(theirs)


def test_the_loop_is_closed():
    requests, _, _ = coding()
    # Who has sub-agents waits for them too.
    alone = requests.groupby("root")["session"].transform("nunique") == 1
    requests = requests[alone].sort_values(["session", "arrival"], kind="stable")
    same = requests["session"].to_numpy()[1:] == requests["session"].to_numpy()[:-1]
    ended = (requests["last_token"] + requests["overhead"]).to_numpy()
    gap = (requests["arrival"].to_numpy()[1:] - ended[:-1])[same]
    # One call in thirty thousand was recorded beside another of its agent.
    assert (gap < -1e-6).sum() <= 1
    assert gap.max() == pytest.approx(60, abs=1e-6)


def test_thirty_thousand_calls_take_seconds():
    _, meta, _ = coding()
    assert meta["cpu_s"] < 15


@pytest.mark.parametrize(("files", "sessions", "calls", "options"), [
    (["agentcgroup_requests_glm.parquet", "agentcgroup_tools_glm.parquet", "agentcgroup_tasks_glm.parquet"], 111, 5641,
     {"zero_tokens": "skip"}),
    (["lmcache_agent_miniswe.parquet"], 20, 402, {}),
])  # fmt: skip
def test_other_recordings_keep_their_totals(files, sessions, calls, options):
    requests, _ = replay(files, **options)
    recorded = pd.read_parquet(TRACES / files[0])
    kept = recorded[(recorded["input_tokens"] > 0) & (recorded["output_tokens"] > 0)]
    assert (len(requests), requests["root"].nunique()) == (calls, sessions)
    ours = requests.groupby("root")[["input_tokens", "output_tokens"]].sum().to_numpy()
    assert np.array_equal(ours, kept.groupby("session_id", sort=False)[["input_tokens", "output_tokens"]].sum().to_numpy())
    if "prefix_tokens" in recorded:
        # Found are whole blocks of 64 tokens, and these calls are sent in order of time, which is not that of the file.
        assert requests["cached_tokens"].sum() == pytest.approx(recorded["prefix_tokens"].sum(), rel=0.03)
