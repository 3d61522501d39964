"""The speed of the simulator on fixed works, beside a bare Python loop timed in the same process.

    python -m tests.speed.bench [--json] [--only W1,W3] [--no-exact] [--best 3]

Each work runs in a process of its own, so that CPU seconds and peak memory are its own. `ratio` is the run's CPU seconds over those of the
bare loop: it compares machines, and `tests/speed/test_speed.py` holds it to the recorded ratios.
"""
from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.speed import agents, rl

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT.parent / "shared" / "data" / "traces" / "azure2023_conv.csv.gz"
MOONCAKE = TRACE.with_name("mooncake_conversation_t0-2400.parquet")
RECORDED = Path(__file__).with_name("recorded.json")
# Works for the network alone (`tests/speed/flows.py`): fabric, flows a second.
FLOWS = {"flows": ("spine", 20_000.0), "flows_rails": ("rails", 20_000.0)}

# A fleet of 10,000 GPUs that scales (`configs/studies/fleet_10k_gpus.yaml`), with fewer requests of its day, and with all.
FLEET = ROOT / "configs" / "studies" / "fleet_10k_gpus.yaml"
FLEETS = {"fleet": 50_000, "fleet_day": 1_000_000}
ALL = ",".join(["W1,W1x4,W2,prefix,W3,10k,1M", *FLEETS, *FLOWS, *agents.SESSIONS, *agents.SAMPLES, *rl.STEPS])
LONG = ("1M", "fleet_day", "agents_10k", "burst_100k", "rl_20", "rl_sync_20", "rl_long_20")


def scenario(replicas: int, workload: dict[str, Any], exact: bool) -> dict[str, Any]:
    engine = {"max_num_seqs": 256, "max_num_batched_tokens": 2048, "exact_steps": exact}
    pool = {"gpu": "h100_sxm", "replicas": replicas, "engine": engine}
    return {"name": "bench", "seed": 1, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [workload]}


def poisson(rate: float, requests: int, lengths: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "poisson", "rate": rate, "num_requests": requests, "lengths": lengths}


def works() -> dict[str, tuple[int, dict[str, Any], bool]]:
    """Replicas, workload, and whether the oracle is run too (minutes on W3; the works that only show growth go without)."""
    trace = {"kind": "trace", "path": str(TRACE)}
    fixed = {"kind": "fixed", "input": 1000, "output": 1000}
    drawn = {"kind": "empirical", "path": str(TRACE)}
    return {
        "W1": (4, trace, True),
        "W1x4": (4, trace | {"rate_scale": 4}, True),
        "W2": (1, poisson(10, 1000, fixed), True),
        "prefix": (8, {"kind": "trace", "path": str(MOONCAKE), "spread": "3s"}, True),
        "W3": (32, poisson(44.2, 100_000, drawn), True),
        "10k": (32, poisson(44.2, 10_000, drawn), False),
        "1M": (32, poisson(44.2, 1_000_000, drawn), False),
    }


def built(name: str, exact: bool) -> dict[str, Any]:
    """The scenario of a work."""
    if name in FLEETS:
        import yaml

        fleet: dict[str, Any] = yaml.safe_load(FLEET.read_text())
        fleet["workloads"][0]["num_requests"] = FLEETS[name]
        return fleet
    if name in agents.SESSIONS or name in agents.SAMPLES:
        return agents.scenario(name)
    if name in rl.STEPS:
        return rl.scenario(name)
    replicas, workload, _ = works()[name]
    return scenario(replicas, workload, exact)


def bare_loop() -> float:
    """CPU seconds of two million turns of the plainest work: attribute, arithmetic, comparison, append."""
    began = time.process_time()
    rows: list[tuple[int, float]] = []
    total = 0.0
    for i in range(2_000_000):
        total += i * 1.0000001
        if total > 1e6:
            rows.append((i, total))
            total -= 1e6
    return time.process_time() - began


def measure(name: str, exact: bool, best: int) -> dict[str, Any]:
    """One work in this process: the least CPU seconds of `best` runs."""
    if name in FLOWS:
        return measure_flows(name)
    from sim.study.run import run

    results = [run(built(name, exact)) for _ in range(best)]
    result = min(results, key=lambda r: r.meta["cpu_s"])
    counts, spent = result.summary["requests"], result.meta["cpu_s"]
    loop = min(bare_loop() for _ in range(3))
    return {
        "work": name, "exact": exact, "requests": counts["arrived"], "completed": counts["completed"], "run_cpu_s": spent,
        "requests_per_cpu_s": counts["arrived"] / spent, "events": result.meta["events"],
        "steps": int(result.tables["stretches"]["steps"].sum()),
        "bare_loop_s": loop, "ratio": spent / loop, "audit": all(check["ok"] for check in result.summary["audit"].values()),
    }  # fmt: skip


def measure_flows(name: str) -> dict[str, Any]:
    """The same of a work for the network alone: its flows are the requests."""
    from tests.speed.flows import Load, simulate

    found = simulate(Load(*FLOWS[name]))
    loop = min(bare_loop() for _ in range(3))
    return found | {"work": name, "bare_loop_s": loop, "ratio": found["run_cpu_s"] / loop}


def whole_process(name: str, folder: Path) -> dict[str, Any]:
    """CPU seconds and peak memory of `burstsim run -o DIR --no-report`, its own start and files included."""
    import yaml

    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(built(name, False)))
    code = "import sys; from sim.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(path), "-o", str(folder / name), "--no-report", "-q"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"process_cpu_s": spent, "peak_rss_mib": after.ru_maxrss / 1024}


def in_child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.speed.bench", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", default=ALL, help="works, by commas")
    parser.add_argument("--no-exact", action="store_true", help="leave out the oracle")
    parser.add_argument("--best", type=int, default=3, help="runs of each work; the best counts")
    parser.add_argument("--child", nargs=3, metavar=("WORK", "EXACT", "BEST"), help=argparse.SUPPRESS)
    parser.add_argument("--process", nargs=2, metavar=("WORK", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child[0], options.child[1] == "1", int(options.child[2]))))
        return
    if options.process:
        print(json.dumps(whole_process(options.process[0], Path(options.process[1]))))
        return
    if not TRACE.exists():
        sys.exit(f"the benchmark needs {TRACE}")
    report(options)


def report(options: argparse.Namespace) -> None:
    import tempfile

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(","):
            if name in FLOWS:
                rows.append(in_child("--child", name, "0", "1"))
                print(f"{name}: {rows[-1]['flows_per_cpu_s']:,.0f} flows/CPU-s, {rows[-1]['mean_under_way']:.0f} at once", file=sys.stderr)
                continue
            row = in_child("--child", name, "0", str(1 if name in LONG else options.best))
            row |= in_child("--process", name, folder)
            if name in works() and works()[name][2] and not options.no_exact:
                exact = in_child("--child", name, "1", "1")
                row |= {"exact_cpu_s": exact["run_cpu_s"], "exact_events": exact["events"]}
            rows.append(row)
            print(_line(row), file=sys.stderr)
    if options.json:
        print(json.dumps(rows, indent=2))


def _line(row: dict[str, Any]) -> str:
    exact = f", one event per step {row['exact_cpu_s']:.1f} s" if "exact_cpu_s" in row else ""
    return (
        f"{row['work']:5s} {row['requests']:8d} requests  run {row['run_cpu_s']:.3f} CPU-s ({row['requests_per_cpu_s']:,.0f}/s, "
        f"{row['ratio']:.2f} x bare loop)  process {row['process_cpu_s']:.2f} CPU-s, {row['peak_rss_mib']:.0f} MiB, "
        f"{row['events']} events for {row['steps']} steps{exact}"
    )


if __name__ == "__main__":
    main()
