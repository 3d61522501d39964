"""The shape of the house: which room imports what, how long a file may be, and how fast the door opens."""
from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("core", "spec", "physics", "policy", "world", "study", "report", "cli")
BUDGET = 400
START = 0.3

# What the packages beside sim/ may use of it, and of each other.
ROOMS = {
    "workloads": {"sim.core", "sim.spec", "workloads", "hardware_profiles"},
    "calibrate": {"sim.core", "sim.spec", "sim.physics", "calibrate", "hardware_profiles"},
    "hardware_profiles": set(),
    "configs": set(),
}
# Where each heavy library may be imported at all: at the top of the module, or only inside functions.
HEAVY_TOP = {
    "simpy": ("sim/world/", "sim/study/run.py", "workloads/"),
    # Scripts that derive presets from recordings are run by hand, and nothing imports them.
    "pandas": ("sim/study/", "sim/report/", "calibrate/", "workloads/presets/fit_"),
    "pyarrow": ("sim/study/",),
    "torch": ("calibrate/",),
    "matplotlib": ("sim/report/",),
    "jinja2": ("sim/report/",),
    "scipy": ("calibrate/", "sim/study/"),
    "rich": (),
    "click": ("sim/cli/", "calibrate/"),
    "joblib": ("sim/study/",),
}
HEAVY_INSIDE = {
    "pandas": ("sim/core/record.py",),
    "scipy": ("workloads/",),
    "pyarrow": ("sim/core/record.py", "workloads/formats/"),
    "rich": ("sim/report/", "sim/cli/"),
}

FILES = sorted(path for room in ("sim", *ROOMS) for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """(module, whether it is inside a function, line) of each import, those for type checkers alone left out."""
    found = []

    def walk(node, inside):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: a relative import"
            found.extend((f"{node.module}.{alias.name}", inside, node.lineno) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))

    walk(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def layer(module):
    """The layer of a module of sim, None for sim itself and the names it offers."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "sim" and parts[1] in LAYERS else None


@pytest.mark.parametrize("path", [path for path in FILES if name(path).startswith("sim/")], ids=name)
def test_imports_point_one_way(path):
    own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module, _, line in imports(path):
        where = f"{name(path)}:{line}: imports {module}"
        other = layer(module)
        if own is None:
            continue
        assert other is None or LAYERS.index(other) <= LAYERS.index(own), where
        room = module.split(".")[0]
        assert room not in ROOMS or (own, room) in (("cli", "calibrate"), ("cli", "workloads")), where


@pytest.mark.parametrize("path", [path for path in FILES if not name(path).startswith("sim/")], ids=name)
def test_rooms_beside_the_house(path):
    allowed = ROOMS[name(path).split("/")[0]]
    for module, _, line in imports(path):
        if module.split(".")[0] in {"sim", *ROOMS}:
            assert any(module.startswith(one + ".") for one in allowed), f"{name(path)}:{line}: imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_libraries_stay_where_they_are_used(path):
    for module, inside, line in imports(path):
        library = module.split(".")[0]
        if library in HEAVY_TOP:
            homes = HEAVY_TOP[library] + (HEAVY_INSIDE.get(library, ()) if inside else ())
            assert name(path).startswith(tuple(homes) or "-"), f"{name(path)}:{line}: imports {library}"


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= BUDGET


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_left_undone(path):
    text = path.read_text(encoding="utf-8")
    words = "TODO|FIXME|XXX|NotImplementedError"
    assert not re.search(rf"\b({words})\b", text)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_randomness_has_a_name(path):
    """Streams come from core/rng.py; `np.random.Generator` is only a type elsewhere."""
    if name(path) == "sim/core/rng.py":
        return
    for module, _, line in imports(path):
        assert module.split(".")[0] not in ("random", "secrets"), f"{name(path)}:{line}: bare random"
        assert not module.startswith("numpy.random.") or module == "numpy.random.Generator", f"{name(path)}:{line}: bare random"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            assert node.attr == "Generator", f"{name(path)}:{node.lineno}: {ast.unparse(node)}"


WRITTEN = (".py", ".yaml", ".yml", ".md", ".toml", ".html", ".css", ".js", ".ipynb", ".json", ".cfg", "")


def test_no_paths_of_one_machine():
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pattern = re.compile(r"(?<![\w./])/(?:work|root|home|Users)/\w")
    for line in tracked.splitlines():
        path = ROOT / line
        if path.suffix in WRITTEN and path.is_file():
            found = pattern.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found or path == Path(__file__), f"{line}: {found.group()}"


HELP = "import sys; sys.argv = ['burstsim', '--help']; from sim.cli import main; main()"


@pytest.mark.parametrize("code", ["import sim", HELP], ids=["import", "help"])
def test_the_door_opens_fast(code):
    """CPU seconds of a fresh process, the best of three."""
    clock = "import time, atexit; atexit.register(lambda: print(time.process_time(), file=__import__('sys').stderr))\n"
    spent = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", clock + code], cwd=ROOT, capture_output=True, text=True, check=True)
        spent.append(float(done.stderr.split()[-1]))
    assert min(spent) < START


@pytest.mark.parametrize("code", ["import sim", "import sim.cli"])
def test_the_door_is_light(code):
    heavy = ["numpy", "pandas", "pyarrow", "scipy", "simpy", "pydantic", "yaml", "matplotlib", "jinja2", "rich", "torch", "joblib"]
    code = f"{code}; import sys; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_api_is_what_it_says():
    import sim

    assert set(sim.__all__) == {
        "BadInput", "Comparison", "Crew", "Plan", "Replications", "Result", "Scenario", "Sweep", "__version__", "capacity", "compare",
        "dump", "load", "loads", "pareto", "plan", "replicate", "run", "sweep", "what_if",
    }  # fmt: skip
    assert re.fullmatch(r"\d+\.\d+\.\d+", sim.__version__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = sim.nothing
