"""Tables of a service's clients as ServeGen publishes them (arXiv:2505.09999), Parquet or CSV.

Rates: `client, t_s, rate, cv, pattern, shape`, and `model` where there are several services; a row is one client in one window of time,
with its requests per second and the law of the gaps between them. Lengths: `client, field, support, mean, p1 ... p100`, a row being the
quantiles of one field (`input_tokens` or `output_tokens`) over `support` requests of one client in one window.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import did_you_mean
from workloads.formats._sheet import Sheet, numbers, plain, require
from workloads.formats._source import PARQUET, Source, open_source

RATES = ("client", "t_s", "rate", "cv", "pattern", "shape")
MARKS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
QUANTILES = tuple(f"p{round(100 * mark)}" for mark in MARKS)
LENGTHS = ("client", "field", "support", "mean", *QUANTILES)
PATTERNS = ("gamma", "weibull")


class ClientRates(NamedTuple):
    """One row per client and window, in order of time: seconds, requests per second, cv, whether gaps are Weibull's, their shape."""

    client: np.ndarray
    time: np.ndarray
    rate: np.ndarray
    cv: np.ndarray
    weibull: np.ndarray
    shape: np.ndarray


class ClientLengths(NamedTuple):
    """One row per client, window and side: tokens at MARKS (rows x 10), their mean, and how many requests they are of."""

    client: np.ndarray
    output: np.ndarray
    support: np.ndarray
    mean: np.ndarray
    quantiles: np.ndarray


def read_rates(path: str, service: str) -> ClientRates:
    """The windows of one service's clients; `service` may be empty where there is only one. Raises BadInput."""
    source, sheet = _sheet(path, RATES)
    rows = _of_service(source, sheet, service)
    client, time, rate, cv, shape = (numbers(sheet, name)[rows] for name in ("client", "t_s", "rate", "cv", "shape"))
    pattern = np.char.lower(_text(sheet, "pattern")[rows])
    line = sheet.line[rows]
    for what, wrong in (
        ("a negative time", time < 0),
        ("a negative rate", rate < 0),
        ("a cv that is not above zero", cv <= 0),
        ("a shape that is not above zero", shape <= 0),
        ("a pattern other than Gamma and Weibull", ~np.isin(pattern, PATTERNS)),
    ):
        if wrong.any():
            source.found(what, line[wrong])
    source.findings.stop()
    order = np.lexsort((client, time))
    pairs = np.stack([client[order], time[order]])
    twice = np.flatnonzero((pairs[:, 1:] == pairs[:, :-1]).all(axis=0))
    if len(twice):
        source.found("the client and time of another row", np.sort(line[order][twice + 1]))
    if not rate.any():
        source.fail("the rate of every client is zero in every window")
    source.findings.stop()
    return ClientRates(*(column[order] for column in (client.astype(np.int64), time, rate, cv, pattern == "weibull", shape)))


def read_lengths(path: str, service: str) -> ClientLengths:
    """The lengths of one service's clients. Raises BadInput."""
    source, sheet = _sheet(path, LENGTHS)
    rows = _of_service(source, sheet, service)
    field = _text(sheet, "field")[rows]
    rows = rows[np.isin(field, ("input_tokens", "output_tokens"))]
    if not len(rows):
        source.fail("no row is of the field input_tokens or output_tokens")
    output = _text(sheet, "field")[rows] == "output_tokens"
    client, support, mean = (numbers(sheet, name)[rows] for name in ("client", "support", "mean"))
    quantiles = np.stack([numbers(sheet, name)[rows] for name in QUANTILES], axis=1)
    for what, wrong in (
        ("quantiles that fall", (np.diff(quantiles, axis=1) < 0).any(axis=1)),
        ("a negative number of tokens", (quantiles < 0).any(axis=1)),
        ("a support that is not above zero", support <= 0),
    ):
        if wrong.any():
            source.found(what, sheet.line[rows][wrong])
    source.findings.stop()
    return ClientLengths(client.astype(np.int64), output, support, mean, quantiles)


def _sheet(path: str, wanted: Sequence[str]) -> tuple[Source, Sheet]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    source = open_source(path)
    packed = source.data.startswith(PARQUET)
    source.unit = "row" if packed else "line"
    buffer = pa.BufferReader(source.data)
    try:
        table = pq.read_table(buffer, use_threads=False) if packed else pyarrow.csv.read_csv(buffer)
    except (pa.ArrowInvalid, OSError) as error:
        source.fail(f"the table cannot be read ({str(error).splitlines()[0]})")
    require(source, table.column_names, [(name,) for name in wanted])
    if not table.num_rows:
        source.fail("the table has no rows")
    columns = {plain(name): table.column(name).combine_chunks() for name in table.column_names}
    return source, Sheet(source, table.column_names, columns, np.arange(table.num_rows) + (1 if packed else 2))


def _text(sheet: Sheet, name: str) -> np.ndarray:
    import pyarrow as pa

    coded = sheet.columns[name].cast(pa.string()).fill_null("").dictionary_encode()
    words: Any = np.array(coded.dictionary.to_pylist(), dtype=str)
    return np.asarray(words[coded.indices.to_numpy()])


def _of_service(source: Source, sheet: Sheet, service: str) -> np.ndarray:
    """The rows of one service."""
    if "model" not in sheet.columns:
        if service:
            source.fail(f"there is no column model, so '{service}' cannot be found in it; leave `service` out")
        return np.arange(len(sheet.line))
    of = _text(sheet, "model")
    names = sorted(set(of.tolist()))
    if not service and len(names) > 1:
        source.fail(f"the table holds several services; give `service`, one of {', '.join(names)}")
    if service and service not in names:
        source.fail(f"no row is of the service '{service}'; {did_you_mean(service, names)}")
    return np.flatnonzero(of == (service or names[0]))
