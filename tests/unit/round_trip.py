"""What every scenario must survive: to be written out and read back, changed from outside, and to rerun itself byte for byte."""
from __future__ import annotations

from click.testing import CliRunner
from scenarios import written

import sim
from sim.cli import main


def saved(path):
    """The folder of a run of this file through the command line, beside the file."""
    folder = path.parent / "one"
    _run(path, folder)
    return folder


def written_out(path):
    """It reads what it writes."""
    scenario = sim.load(path)
    text = sim.dump(scenario)
    again = sim.load(written(path.parent, text, "again.yaml"))
    assert again == scenario
    assert sim.dump(again) == text


def reruns(one, least):
    """A run from the scenario that lies beside the tables has the same bytes; at least these tables are there."""
    two = one.parent / "two"
    _run(one / "scenario.yaml", two)
    tables = sorted(path.name for path in one.glob("*.parquet"))
    assert least <= {name.removesuffix(".parquet") for name in tables}
    for name in [*tables, "scenario.yaml"]:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())


def changed(path, key, *sets):
    """What is set under a key from outside changes the scenario, and is written out and read back."""
    scenario = sim.load(path, sets)
    assert scenario != sim.load(path), key
    assert sim.load(written(path.parent, sim.dump(scenario), "set.yaml")) == scenario, key


def _run(path, folder):
    done = CliRunner().invoke(main, ["run", str(path), "-o", str(folder), "--no-report", "-q"])
    assert done.exit_code in (0, 1), done.stderr
