"""The hardware catalogue: every profile loads, stays plausible, and a damaged one is refused with all that is wrong."""
from __future__ import annotations

import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

from sim.core.errors import BadInput
from sim.spec import hardware
from sim.spec.hardware import gpu, gpu_names, node, node_names

WANTED = {
    "a100_sxm_80gb", "a6000", "h100_sxm", "h800", "h20", "h200_sxm", "b200", "gb200", "l4", "l40s", "rtx4090", "rtx_pro_6000", "mi300x",
}  # fmt: skip
MEASURED = ["a100_sxm_80gb", "b200", "gb200", "h100_sxm", "rtx_pro_6000"]


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
def test_physics_stays_below_what_any_kernel_reached(name: str) -> None:
    chip = gpu(name)
    blocks = [*chip.physics["gemm"].values(), *chip.physics["attention_decode"].values(), *(
        block for key, block in chip.physics.items() if key not in ("gemm", "attention_decode")
    )]  # fmt: skip
    for block in blocks:
        assert block.get("compute", 0) <= 0.90
        assert block.get("memory", 0) <= 0.95
        assert 0 <= block.get("t0", 0) < 50e-6
    assert set(chip.flops) - {"fp16"} <= set(chip.physics["gemm"])
    assert chip.physics["host"]["seconds"] < 5e-3


@pytest.mark.parametrize("name", gpu_names())
def test_every_figure_says_how_it_is_known(name: str) -> None:
    chip = gpu(name)
    assert {figure.kind for figure in chip.figures.values()} <= set(hardware.KINDS)
    assert all(figure.source and figure.date for figure in chip.figures.values())
    assert chip.figures["bandwidth"].value == chip.bandwidth
    assert chip.figures["physics.gemm.bf16.compute"].value == chip.physics["gemm"]["bf16"]["compute"]
    assert chip.worst_of("physics.gemm.bf16") == ("fitted" if name in MEASURED else "judgement")
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
    assert chip.physics["host"]["seconds"] == pytest.approx(2.04e-3)


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
        ("  launch: {seconds: 33us", "  launch: {second: 33us"),
        ("  elementwise: {t0: 2us, memory: 0.5", "  elementwise: {t0: 2us, memory: 1.5"),
    ):
        assert old in text
        text = text.replace(old, new)
    problems = refused(tmp_path, text)
    assert "missing" in problems["bandwidth"]
    assert problems["bandwith"].endswith("did you mean bandwidth?")
    assert "positive" in problems["sms"]
    assert "did you mean datasheet" in problems["tdp"]
    assert "bandwidth is wanted" in problems["pcie"]
    assert "missing" in problems["physics.launch.seconds"]
    assert "unknown key" in problems["physics.launch.second"]
    assert "at most 1" in problems["physics.elementwise.memory"]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("fp8: {value: 1979.0e12", "fp9: {value: 1979.0e12", "flops.fp9"),
        ("idle_watts: {value: 70", "idle_watts: {value: -70", "idle_watts"),
        ("idle_watts: {value: 70", "idle_watts: {value: .nan", "idle_watts"),
        ("kind: fitted", "kind: guessed", "sources.fit.kind"),
        ("    int4:", "    int5:", "physics.gemm.int5"),
        ("architecture: hopper", "architecture: 9", "architecture"),
        ("memory: {value: 81559MiB, source: driver}", "memory: 81559MiB", "memory"),
    ],
)
def test_damage_names_the_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    text = text_of("h100_sxm").replace("1979e12", "1979.0e12")
    assert old in text
    assert key in refused(tmp_path, text.replace(old, new, 1))


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


def test_the_profiles_hold_what_the_fit_finds() -> None:
    """`calibrate.roofline` on the published tables gives the parameters in the profile, to the digits kept there."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "kernels"
    if not folder.is_dir():
        pytest.skip("no kernel tables at ../shared/data/kernels")
    roofline = pytest.importorskip("calibrate.roofline")
    physics = gpu("h100_sxm").physics
    found = {result.op: result for result in roofline.fits(folder, "h100_sxm")}
    assert {"gemm.bf16", "gemm.fp8", "attention_decode.bf16", "attention_prefill", "all_reduce"} <= set(found)
    for op, result in found.items():
        block = physics
        for key in op.split("."):
            block = block[key]
        assert block == pytest.approx(result.parameters, rel=0.01)
    assert found["gemm.bf16"].median < 8
    assert all(result.median < 20 for result in found.values())
