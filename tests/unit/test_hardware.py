"""The hardware catalogue: every profile loads, stays plausible, and a damaged one is refused with all that is wrong."""
from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

from sim.core.errors import BadInput
from sim.spec import hardware
from sim.spec.fit import wanted
from sim.spec.hardware import gpu, gpu_names, node, node_names

WANTED = {
    "a100_sxm_80gb", "a6000", "h100_sxm", "h800", "h20", "h200_sxm", "b200", "gb200", "l4", "l40s", "rtx4090", "rtx_pro_6000", "mi300x",
}  # fmt: skip
MEASURED = ["a100_sxm_80gb", "b200", "gb200", "h100_sxm", "rtx_pro_6000", "rtx4090"]


def text_of(name: str) -> str:
    return files("hardware_profiles").joinpath("gpus", name + ".yaml").read_text("utf-8")


def refused(tmp_path: Path, text: str) -> dict[str, str]:
    """The problems of a profile, by key."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        gpu(str(path))
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_the_catalogue_holds_what_was_promised() -> None:
    assert set(gpu_names()) >= WANTED
    assert {"dgx_a100", "hgx_h100", "hgx_h200", "hgx_b200", "gb200_nvl72", "pcie_l40s"} <= set(node_names())


@pytest.mark.parametrize("name", gpu_names())
def test_gpu_is_plausible(name: str) -> None:
    chip = gpu(name)
    assert chip.name == name
    assert name in node(chip.node).fits
    assert 16e9 < chip.memory < 300e9
    assert 0.2e12 < chip.bandwidth < 10e12
    assert chip.idle_watts < 0.3 * chip.tdp
    # Ops per byte of every accelerator since Ampere lie in this range; a sparse or mistyped peak does not.
    assert 30 < chip.flops["bf16"] / chip.bandwidth < 500
    for wide, narrow in (("bf16", "fp8"), ("fp8", "nvfp4")):
        if wide in chip.flops and narrow in chip.flops:
            assert chip.flops[narrow] == pytest.approx(2 * chip.flops[wide], rel=0.02)


@pytest.mark.parametrize("name", gpu_names())
def test_every_kernel_of_a_step_is_known(name: str) -> None:
    """Measured here or on loan, with parameters in their limits, and an error wherever it was measured."""
    chip = gpu(name)
    for op in ("gemm", "attn_decode", "attn_prefill", "mla_decode", "mla_prefill", "moe"):
        assert chip.fit(op, "bf16"), op
    for op in ("norm", "rope", "activation", "embedding", "sampling", "host", "launch", "frontend"):
        assert chip.fit(op), op
    for fit in chip.fits:
        assert set(wanted(fit.op, fit.dtype)) <= set(fit.parameters)
        assert (fit.errors is not None) == (fit.points > 0)
        assert fit.kind == "judgement" or fit.origin == name
        assert fit.parameters.get("t0", 0.0) < 1e-3


def test_a_loan_says_so_and_widens_the_error() -> None:
    own, lent = gpu("h100_sxm").fit("gemm", "bf16"), gpu("h20").fit("gemm", "bf16")
    assert own
    assert lent
    assert own.errors
    assert lent.errors
    assert (own.origin, own.kind) == ("h100_sxm", "fitted")
    assert (lent.origin, lent.kind) == ("h100_sxm", "judgement")
    assert "transferred from h100_sxm" in lent.source
    assert lent.parameters == own.parameters
    assert lent.errors.median >= own.errors.median


def test_a_measured_gpu_keeps_its_own_and_borrows_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = text_of("h20").replace("like: h100_sxm\n", "")
    path.write_text(text)
    assert {fit.origin for fit in gpu(str(path)).fits} >= {"h100_sxm"}  # by its architecture
    path.write_text(text.replace("title:", "like: b200\ntitle:"))
    assert gpu(str(path)).fit("gemm", "bf16").origin == "b200"  # type: ignore[union-attr]
    path.write_text(text.replace("title:", "like: b20\ntitle:"))
    assert "did you mean b200" in refused(tmp_path, path.read_text())["like"]


@pytest.mark.parametrize("name", gpu_names())
def test_every_figure_says_how_it_is_known(name: str) -> None:
    chip = gpu(name)
    assert {figure.kind for figure in chip.figures.values()} <= set(hardware.KINDS)
    assert all(figure.source and figure.date for figure in chip.figures.values())
    assert chip.figures["bandwidth"].value == chip.bandwidth
    assert chip.fit("gemm", "bf16").kind == ("fitted" if name in MEASURED else "judgement")  # type: ignore[union-attr]
    assert chip.worst == "judgement"  # prices always are


@pytest.mark.parametrize("name", node_names())
def test_node_is_plausible(name: str) -> None:
    host = node(name)
    assert host.interconnect in hardware.INTERCONNECTS
    assert set(host.fits) <= set(gpu_names())
    assert host.domain == 1 if host.interconnect == "pcie" else host.domain >= host.gpus
    assert all((gpu(fit).nvlink > 0) == (host.interconnect != "pcie") for fit in host.fits)


def test_the_link_follows_the_distance() -> None:
    rack, box, cards = node("gb200_nvl72"), node("hgx_h100"), node("pcie_l40s")
    assert rack.link(gpu("gb200"), 72) == 900e9
    assert box.link(gpu("h100_sxm"), 8) == 450e9
    assert box.link(gpu("h100_sxm"), 16) == 50e9
    assert cards.link(gpu("l40s"), 4) == 32e9


def test_units_are_si() -> None:
    chip = gpu("h100_sxm")
    assert (chip.memory, chip.bandwidth, chip.nvlink) == (81559 * 2**20, 3.35e12, 450e9)
    assert 0.5e-3 < chip.fit("host")["seconds"] < 5e-3  # type: ignore[index]


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"did you mean .*h100_sxm"):
        gpu("h100_smx")
    with pytest.raises(BadInput, match="did you mean hgx_h100"):
        node("hgx_h10")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "my_card.yaml"
    path.write_text(text_of("h100_sxm").replace("value: 700", "value: 500"))
    assert (gpu(str(path)).name, gpu(str(path)).tdp) == ("my_card", 500)
    with pytest.raises(BadInput, match="no file with a GPU profile here"):
        gpu(str(tmp_path / "absent.yaml"))


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = text_of("h100_sxm")
    for old, new in (
        ("bandwidth: {value: 3.35TB/s", "bandwith: {value: 3.35TB/s"),
        ("value: 132", "value: 0"),
        ("tdp: {value: 700, source: datasheet}", "tdp: {value: 700, source: datashet}"),
        ("pcie: {value: 64GB/s", "pcie: {value: 64GB"),
        ("source: launch\n    parameters: {seconds:", "source: launch\n    parameters: {second:"),
    ):
        assert old in text
        text = text.replace(old, new)
    problems = refused(tmp_path, text)
    assert "missing" in problems["bandwidth"]
    assert problems["bandwith"].endswith("did you mean bandwidth?")
    assert "positive" in problems["sms"]
    assert "did you mean datasheet" in problems["tdp"]
    assert "bandwidth is wanted" in problems["pcie"]
    (launch,) = [path for path in problems if path.endswith("parameters.seconds")]
    assert "missing" in problems[launch]
    assert "unknown key" in problems[launch[:-1]]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("fp8: {value: 1979.0e12", "fp9: {value: 1979.0e12", "flops.fp9"),
        ("idle_watts: {value: 70", "idle_watts: {value: -70", "idle_watts"),
        ("idle_watts: {value: 70", "idle_watts: {value: .nan", "idle_watts"),
        ("kind: fitted", "kind: guessed", "sources.host.kind"),
        ("op: host", "op: hots", "fits.HOST.op"),
        ("e_m: 0.", "e_m: 1.", "fits.ANY.parameters.e_m"),
        ("framework: nccl", "framework: ncl", "fits.ANY.framework"),
        ("architecture: hopper", "architecture: 9", "architecture"),
        ("memory: {value: 81559MiB, source: driver}", "memory: 81559MiB", "memory"),
    ],
)
def test_damage_names_the_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    text = text_of("h100_sxm").replace("1979e12", "1979.0e12")
    assert old in text
    found = refused(tmp_path, text.replace(old, new, 1))
    assert any(re.fullmatch(key.replace(".", r"\.").replace("ANY", r"\d+").replace("HOST", r"\d+"), path) for path in found)


def test_text_that_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("title: [a\nb: c")
    with pytest.raises(BadInput, match="not valid YAML"):
        gpu(str(path))
    path.write_text("- 1\n")
    with pytest.raises(BadInput, match="a mapping of keys is wanted"):
        gpu(str(path))


def test_loading_is_cheap() -> None:
    gpu("h100_sxm")
    fastest = min(_timed("h100_sxm") for _ in range(5))
    assert fastest < 5e-3
    code = "import sys; from sim.spec.hardware import gpu; gpu('h100_sxm'); assert not {'numpy', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _timed(name: str) -> float:
    start = time.perf_counter()
    gpu(name)
    return time.perf_counter() - start
