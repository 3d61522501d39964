"""Constants by an engine's release: which one a version finds, what is said when it was not measured, and what a profile may hold."""
from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import pandas as pd
import pytest

from calibrate.profile import write
from sim.core.errors import BadInput
from sim.physics.kernels import Kernels
from sim.physics.step import EngineStep
from sim.spec.engine import EngineOptions
from sim.spec.fit import Fit, of_version, release, same_release
from sim.spec.hardware import Gpu, gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool
from sim.study.validate.releases import by_release

CHIP = gpu("h100_sxm")


def host(seconds: float, version: str = "", framework: str = "vllm", op: str = "host") -> Fit:
    values = {"seconds": seconds, "synchronous": 7e-3} if op == "host" else {"seconds": seconds}
    return Fit(op, "", framework, values, "h100_sxm", "fitted", "a test", version=version)


def chip(*fits: Fit) -> Gpu:
    """An H100 whose hosts are those given."""
    return replace(CHIP, fits=(*(fit for fit in CHIP.fits if fit.op not in {one.op for one in fits}), *fits))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("0.12", "0.12"), ("0.12.0", "0.12"), ("0.12.3", "0.12"), ("0.15.1", "0.15.1"), ("v0.15.1rc2", "0.15.1"), ("0.15", "0.15.1"),
        ("0.13", "0.12"), ("0.15.0", "0.12"), ("0.22", "0.15.1"), ("1.0", "0.15.1"), ("0.9.9", "0.12"), ("0.2", "0.12"), ("", "0.15.1"),
    ],
)  # fmt: skip
def test_a_version_finds_its_own_or_the_nearest(asked, found):
    fits = [host(1e-3, "0.15.1"), host(3e-3, "0.12"), host(9e-3, "0.13", "sglang")]
    assert of_version(fits[:2], asked).version == found
    assert chip(*fits).fit("host", "", "vllm", asked).version == found


def test_a_release_that_was_not_measured_has_the_figure_for_all():
    fits = [host(1e-3, "0.15.1"), host(2e-3), host(3e-3, "0.12")]
    assert [of_version(fits, asked).version for asked in ("0.15", "0.12.3", "0.18", "0.13", "")] == ["0.15.1", "0.12", "", "", ""]


def test_without_versions_there_is_one_for_all_and_without_that_the_newest():
    assert of_version([host(1e-3)], "0.15").version == ""
    assert of_version([host(1e-3, "0.9"), host(2e-3, "0.10")], "").version == "0.10"
    assert release("0.10") > release("0.9")
    assert not same_release("0.1", "0.15")


def test_another_frameworks_versions_mean_nothing():
    fits = host(1e-3, "0.15"), host(2e-3)
    assert chip(*fits).fit("host", "", "trtllm", "0.15").version == ""


def test_what_was_not_measured_is_said():
    fits = host(1e-3, "0.15"), host(2e-3), host(4e-3, "", "trtllm")

    def said(version: str, framework: str = "vllm") -> tuple[float, set[str]]:
        kernels = Kernels(chip(*fits), framework, version)
        return kernels.need("host")["seconds"], kernels.assumed

    assert said("0.15.1") == (1e-3, set())
    assert said("") == (2e-3, set())
    assert said("0.18") == (2e-3, {"the host's time per step of vllm 0.18 on h100_sxm: not known by version; one figure stands for all"})
    kernels = Kernels(chip(fits[0]), "vllm", "0.18")
    assert kernels.need("host")["seconds"] == 1e-3
    assert kernels.assumed == {"the host's time per step of vllm 0.18 on h100_sxm: not measured; that of 0.15 stands in"}
    assert said("1.2", "trtllm") == (
        4e-3, {"the host's time per step of trtllm 1.2 on h100_sxm: not known by version; one figure stands for all"}
    )  # fmt: skip


def test_the_step_model_takes_the_version_and_says_what_stands_in():
    def bound(**engine: object) -> EngineStep:
        mine = chip(host(1e-3, "0.15"), host(2e-3), host(6e-3, "0.15", op="frontend"), host(1e-2, op="frontend"))
        return EngineStep(llm("meta-llama/Llama-3.1-8B"), mine, Pool.model_validate({"gpu": "h100_sxm", "engine": engine}))

    any_version, own, later = bound(), bound(framework_version="0.15.1"), bound(framework_version="0.18.0")
    assert (any_version.host, any_version.frontend) == (2e-3, 1e-2)
    assert (own.host, own.frontend) == (1e-3, 6e-3)
    assert (later.host, later.frontend) == (2e-3, 1e-2)
    assert bound(framework_version="0.15.1", async_scheduling=False).host == pytest.approx(8e-3)
    assert len(later.assumed(100) - own.assumed(100)) == 2
    assert all("one figure stands for all" in text for text in later.assumed(100) - own.assumed(100))
    # Nothing is said of a constant that the user gives.
    given = bound(framework_version="0.18.0", host_overhead="1ms", frontend_overhead="1ms")
    assert given.assumed(100) == any_version.assumed(100)


@pytest.mark.parametrize("wrong", [0.15, 1, "dev", ""])
def test_a_version_is_a_release_in_quotes(wrong):
    with pytest.raises(ValueError, match="in quotes" if not isinstance(wrong, str) else "number of a release"):
        EngineOptions(framework_version=wrong)


def test_a_profile_holds_versions_and_keeps_them(tmp_path):
    out = tmp_path / "mine.yaml"
    fits = [host(1e-3, "0.15"), host(2e-3, "0.10")]
    write("h100_sxm", fits, "a test of versions", out)
    mine = gpu(str(out))
    assert {fit.version: fit["seconds"] for fit in mine.fits if fit.op == "host" and fit.framework == "vllm"} == {
        "": pytest.approx(CHIP.fit("host")["seconds"]), "0.15": 1e-3, "0.10": 2e-3,
    }  # fmt: skip
    write(str(out), [host(3e-3, "0.15")], "a test of versions", out)
    assert gpu(str(out)).fit("host", "", "vllm", "0.15")["seconds"] == 3e-3


@pytest.mark.parametrize(
    ("version", "said"), [("0.15", "in quotes"), ('"dev"', "number of a release"), ('""', "two fits of frontend vllm")]
)  # fmt: skip
def test_a_bad_version_in_a_profile_is_refused(tmp_path, version, said):
    text = files("hardware_profiles").joinpath("gpus", "h100_sxm.yaml").read_text("utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace('version: "0.15"', f"version: {version}"))
    with pytest.raises(BadInput, match=said):
        gpu(str(path))


def test_a_release_is_judged_on_models_it_was_not_fitted_on():
    models = (("a", 1e-3, "0.15.1"), ("b", 2e-3, "0.15.0"), ("c", 3e-3, "0.15"), ("d", 9e-3, "0.18"), ("e", 9e-3, ""))
    points = pd.DataFrame([
        {"run_id": f"{model}{i}", "model": model, "framework": "vllm", "version": version, "gpu": "g", "light": i > 0,
         "tpot": asked - 4e-3 if i else 1.0, "ttft": float("nan"), "host_overhead": 4e-3, "frontend_overhead": 0.0}
        for model, asked, version in models for i in range(5)
    ])  # fmt: skip
    own, lone = by_release(points)
    assert (own["release"], own["constant"], own["models"], own["runs"]) == ("0.15", "host_overhead", 3, 12)
    assert own["fitted"] == pytest.approx(2e-3)
    assert own["off_in_use"] == pytest.approx((3e-3 + 2e-3 + 1e-3) / 3)
    assert own["off_release"] == pytest.approx((1.5e-3 + 0.0 + 1.5e-3) / 3)  # from 2.5, 2 and 1.5 ms
    assert own["off_all"] == pytest.approx((5e-3 + 4e-3 + 2.5e-3) / 3)  # from 6, 6 and 5.5 ms
    assert (lone["release"], lone["models"], lone["off_release"]) == ("0.18", 1, None)
    assert lone["off_all"] == pytest.approx(6.5e-3)
