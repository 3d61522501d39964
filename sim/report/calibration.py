"""Predicted against measured kernel times: a panel per kind of kernel, both axes logarithmic, with the band of 10 % about the diagonal."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sim.core.errors import BadInput

SUFFIXES = (".svg", ".png", ".pdf")
COLUMNS = 3
BAND = 0.1
COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#be185d")


def draw(points: pd.DataFrame, gpu: str, path: Path) -> None:
    """`points` has op, our_dtype, measured_us, predicted_us, ape. The picture's format follows the suffix of `path`.

    Raises BadInput when the suffix is none of SUFFIXES or the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise BadInput(f"found {path.name}; a name that ends in {', '.join(SUFFIXES)} is wanted")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ops = sorted(points["op"].unique())
    rows = -(-len(ops) // COLUMNS)
    figure, axes = pyplot.subplots(rows, min(COLUMNS, len(ops)), figsize=(4.2 * min(COLUMNS, len(ops)), 3.9 * rows), squeeze=False)
    for axis in axes.flat[len(ops):]:
        axis.set_visible(False)
    for op, axis in zip(ops, axes.flat, strict=False):
        _panel(axis, op, points[points["op"] == op])
    figure.suptitle(f"{gpu}: predicted against measured kernel times")
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        pyplot.close(figure)


def _panel(axis, op: str, points: pd.DataFrame) -> None:  # type: ignore[no-untyped-def]
    ends = np.array([points[["measured_us", "predicted_us"]].min().min() / 1.3, points[["measured_us", "predicted_us"]].max().max() * 1.3])
    axis.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="#888888", alpha=0.2, linewidth=0)
    axis.plot(ends, ends, color="#555555", linewidth=0.8)
    for colour, (dtype, some) in zip(COLOURS, points.groupby("our_dtype"), strict=False):
        label = f"{dtype or 'all'}: {100 * some['ape'].median():.1f} %, {len(some)} points"
        axis.scatter(some["measured_us"], some["predicted_us"], s=4, alpha=0.4, color=colour, label=label, linewidths=0)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured, µs", ylabel="predicted, µs", title=op)
    axis.legend(fontsize=7, markerscale=3, title="median error", title_fontsize=7, loc="upper left")
