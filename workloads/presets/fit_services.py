"""Derive days and services from the published tables: `python -m workloads.presets.fit_services FOLDER` rewrites days/ and services/.

A client's cv is that of its windows in the middle, weighed by their requests; its law the one most of its requests came by. Clients with a
hundredth of the requests or more have a curve of their own, the mean of their rate by the hour of the day; the others share one. What the
curve leaves of the variance of a client's rate between windows is its noise: with c the curve over its mean, sigma^2 = ln(E rate^2 /
(E rate)^2 / E c^2), and the memory is that of the correlation between neighbouring windows. Times are those of the tables, which do not say
what the clock showed at their beginning.
"""
from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workloads._clients import of_clients
from workloads.formats._clients import ClientRates, read_lengths, read_rates
from workloads.presets import services

DAYS = services.FOLDER.parent / "days"
SERVEGEN = {
    "where": "github.com/alibaba/ServeGen; arXiv:2505.09999",
    "licence": "Apache-2.0",
    "provenance": "fitted",
}
SERVICES = {"servegen_deepseek_r1": "deepseek-r1", "servegen_m_mid": "m-mid", "servegen_m_small": "m-small"}
OWN_CURVE = 0.01
MOST_CV, MOST_SIGMA = 100.0, 3.0
HOUR, DAY = 3600.0, 86400.0


def table(rows: ClientRates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The windows' times, the clients, and rates by window and client; a client without a row sent nothing."""
    times, window = np.unique(rows.time, return_inverse=True)
    clients, column = np.unique(rows.client, return_inverse=True)
    rates = np.zeros((len(times), len(clients)))
    rates[window, column] = rows.rate
    return times, clients, rates


def by_hour(times: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Mean rate in each hour of the day, or of what there is of one; over the mean of these."""
    hour = (times % DAY // HOUR).astype(int)
    present = np.unique(hour)
    hours = np.array([rates[hour == one].mean() for one in present])
    return np.asarray(hours / hours.mean())


def middle(values: np.ndarray, weights: np.ndarray) -> float:
    """The weighted median."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])


def noise(times: np.ndarray, rates: np.ndarray, curve: np.ndarray) -> tuple[float, float]:
    """(sigma, memory in seconds) of what a curve leaves of a client's rates."""
    expected = curve[(times % DAY // HOUR).astype(int) % len(curve)]
    spread = (rates**2).mean() / rates.mean() ** 2 / (expected**2).mean()
    if spread <= 1:
        return 0.0, HOUR
    left = np.divide(rates, expected, out=np.zeros_like(rates), where=expected > 0)
    near = float(np.corrcoef(left[:-1], left[1:])[0, 1])
    memory = 600.0 / -math.log(min(max(near, 0.3), 0.99))
    return min(math.sqrt(math.log(spread)), MOST_SIGMA), memory


def numbers(values: np.ndarray, digits: int = 4) -> list[float]:
    """Plain numbers of so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values]


def fit(rows: ClientRates, lengths: Any) -> dict[str, Any]:
    """The content of one service's file."""
    times, clients, rates = table(rows)
    total = rates.mean(axis=0)
    share = total / total.sum()
    own = share >= OWN_CURVE
    curves = {"others": by_hour(times, rates[:, ~own].sum(axis=1))}
    curves |= {f"client_{client}": by_hour(times, rates[:, k]) for k, client in enumerate(clients.tolist()) if own[k]}
    known = set(lengths.client.tolist())
    described = []
    for k in np.argsort(-share, kind="stable").tolist():
        client = int(clients[k])
        curve = f"client_{client}" if own[k] else "others"
        here = rows.client == client
        sigma, memory = noise(times, rates[:, k], curves[curve])
        weibull = rows.rate[here][rows.weibull[here]].sum() > rows.rate[here].sum() / 2
        described.append({
            "share": numbers(share[[k]])[0],
            "cv": numbers(np.array([min(middle(rows.cv[here], rows.rate[here]), MOST_CV)]))[0],
            "gaps": "weibull" if weibull else "gamma",
            "curve": curve,
            "sigma": round(sigma, 3),
            "memory": round(memory),
            "lengths": f"client_{client}" if client in known else "all",
        })  # fmt: skip
    wanted = sorted(known & set(clients.tolist()))
    sizes = of_clients(lengths, [*wanted, -1])
    names = [*(f"client_{client}" for client in wanted), "all"]
    tokens = {
        name: {"input": numbers(np.exp(prompt)), "output": numbers(np.exp(output))}
        for name, prompt, output in zip(names, sizes.prompt, sizes.output, strict=True)
    }
    return {
        "rate": numbers(np.array([total.sum()]), 6)[0],
        "clients": described,
        "curves": {name: numbers(curve, 3) for name, curve in curves.items()},
        "lengths": tokens,
    }


def write(path: Path, source: dict[str, Any], content: dict[str, Any], of: str) -> None:
    """A preset's file: a remark, its source, its figures with one client, curve or law a line."""
    import yaml

    lines = [f"# Derived by `python -m workloads.presets.fit_services` from {of}; do not edit."]
    lines.append(yaml.safe_dump({"source": source}, sort_keys=False, width=140).rstrip())
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {name}: {_flow(one)}" for name, one in value.items())]
        elif isinstance(value, list) and isinstance(value[0], dict):
            lines += [f"{key}:", *(f"- {_flow(one)}" for one in value)]
        else:
            lines.append(f"{key}: {_flow(value)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _flow(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10**6)).removesuffix("\n").removesuffix("\n...")


def main(folder: Path) -> None:
    with (folder / "burstgpt_hour_of_day.csv").open(encoding="utf-8", newline="") as file:
        hours = [float(row["rph"]) for row in csv.DictReader(file)]
    source = {
        "what": "BurstGPT: mean requests per hour by the hour of the day, 61 days of ChatGPT and GPT-4",
        "where": "github.com/HPMLL/BurstGPT; arXiv:2401.17644", "licence": "CC-BY-4.0", "provenance": "measured",
    }  # fmt: skip
    write(DAYS / "burstgpt.yaml", source, {"hours": hours}, "burstgpt_hour_of_day.csv")
    rates, lengths = "servegen_client_rates_A.parquet", "servegen_client_lengths_A.parquet"
    for name, service in SERVICES.items():
        rows = read_rates(str(folder / rates), service)
        times, clients, table_ = table(rows)
        what = f"ServeGen, {service}: {len(clients)} clients over {times[-1] / DAY + 600 / DAY:.1f} days in windows of ten minutes"
        write(services.FOLDER / f"{name}.yaml", {"what": what} | SERVEGEN, fit(rows, read_lengths(str(folder / lengths), service)), rates)
        if times[-1] > 3 * DAY:
            hours = numbers(by_hour(times, table_.sum(axis=1)))
            write(DAYS / f"{name}.yaml", {"what": f"{what}, all together by the hour of the day"} | SERVEGEN, {"hours": hours}, rates)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m workloads.presets.fit_services FOLDER, the folder that holds the tables")
    main(Path(sys.argv[1]))
