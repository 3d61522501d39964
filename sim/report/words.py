"""Figures as people read them: three significant digits, and the unit that keeps them short. An undefined figure is a dash."""
from __future__ import annotations

import math

DASH = "–"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
# (seconds, name, from how many of it on): three minutes read better as 180 s.
_TIMES = ((86400.0, "d", 2), (3600.0, "h", 2), (60.0, "min", 5), (1.0, "s", 1), (1e-3, "ms", 1), (1e-6, "µs", 1), (1e-9, "ns", 1))
TICK = 1e-9  # seconds: less is how the clock tells events of one instant apart
_UNITS = {
    "memory": "B", "bandwidth": "B/s", "l2": "B", "flops": "FLOP/s", "tdp": "W", "idle_watts": "W", "price_per_hour": "USD/h",
    "nvlink": "B/s", "pcie": "B/s", "grid": "gCO2e/kWh", "nic_bandwidth": "B/s", "memory_bandwidth": "B/s", "nic_latency": "s",
    "switch_latency": "s", "init_seconds": "s", "capture_seconds": "s", "image_size": "B", "image_bandwidth": "B/s",
    "weights_bandwidth": "B/s",
}  # fmt: skip


def seconds(value: float | None) -> str:
    """
    >>> seconds(0.0421), seconds(75), seconds(600), seconds(2.5e-10), seconds(None)
    ('42.1 ms', '75 s', '10 min', '0 s', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    for size, unit, least in _TIMES:
        if value >= size * least:
            return f"{_digits(value / size)} {unit}"
    return "0 s" if abs(value) < TICK else f"{value:.3g} s"


def together(values: list[float | None]) -> tuple[str, list[str]]:
    """Times that stand in one row, in one unit: milliseconds when all are below two seconds, else seconds.

    >>> together([0.05, 0.1234, None]), together([0.05, 12]), together([2.5e-10])
    (('ms', ['50', '123', '–']), ('s', ['0.05', '12']), ('ms', ['0']))
    """
    unit, size = ("ms", 1e-3) if max((v for v in values if v is not None), default=0.0) < 2 else ("s", 1.0)
    return unit, [number(None if value is None else value / size if abs(value) >= TICK else 0.0) for value in values]


def number(value: float | None) -> str:
    """
    >>> number(12.3456), number(1234567), number(0.00123), number(100), number(None)
    ('12.3', '1,234,567', '0.00123', '100', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else _digits(value)


def counted(count: int, what: str) -> str:
    """
    >>> counted(1, "GPU"), counted(1200, "GPU")
    ('1 GPU', '1,200 GPUs')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def percent(value: float | None) -> str:
    """
    >>> percent(0.12345), percent(1), percent(0.9996), percent(0.0001)
    ('12.3%', '100%', '99.96%', '0.01%')
    """
    if value is None or not math.isfinite(value):
        return DASH
    # 99.96% must not read as 100%.
    places = 2 if 0.995 < abs(value) < 1 or 0 < abs(value) < 0.001 else 1
    return f"{100 * value:.{places}f}".rstrip("0").rstrip(".") + "%" if value else "0%"


def dollars(value: float | None) -> str:
    """
    >>> dollars(2.5), dollars(1234.5), dollars(0.0000123), dollars(None)
    ('$2.50', '$1,234', '$0.0000123', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    places = 0 if value >= 1000 else 2 if value >= 0.1 or value <= 0 else 2 - math.floor(math.log10(value))
    return f"${value:,.{places}f}"


def figure(name: str, value: float | None) -> str:
    """The value of a hardware figure, its unit known by its name; of a kernel's fit, its median error where one is known.

    >>> figure("bandwidth", 3.35e12), figure("flops.bf16", 989e12), figure("kernel.gemm.bf16", 0.041), figure("sms", 132)
    ('3.35 TB/s', '989 TFLOP/s', '4.1 % median error', '132')
    >>> figure("hgx_h100.nic_bandwidth", 50e9), figure("fabric.nic_latency", 0.9e-6)
    ('50 GB/s', '900 ns')
    """
    if name.startswith("kernel."):
        return "error not known" if value is None else f"{100 * value:.1f} % median error"
    parts = name.split(".")
    unit = _UNITS.get(parts[0], _UNITS.get(parts[-1], ""))
    if unit in ("USD/h", "s"):
        return f"{dollars(value)}/h" if unit == "USD/h" else seconds(value)
    return f"{scaled(value)}{unit}" if unit in ("B", "B/s", "FLOP/s") else f"{number(value)} {unit}".strip()


def scaled(value: float) -> str:
    """
    >>> scaled(16.1e9) + "B", scaled(12) + "B"
    ('16.1 GB', '12 B')
    """
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{_digits(value / size)} {prefix}"
    return f"{_digits(value)} "


def _digits(value: float) -> str:
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e+" in text else text
