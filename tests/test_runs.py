"""The run script of the delay task in small, and what stands in its committed ledger."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "chapters" / "runs"
MODELS = ("legt", "lstm", "gru")
FIELDS = {
    "name",
    "command",
    "commit",
    "seeds",
    "hardware",
    "versions",
    "wall_seconds",
    "parameters",
    "task",
    "effort",
    "model",
    "optimizer",
    "notes",
    "delays",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("delay_run", RUNS / "delay.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, monkeypatch, capsys):
    """Call the script with a command line; what it printed."""
    threads = torch.get_num_threads()

    def call(*words) -> str:
        monkeypatch.setattr(sys, "argv", ["delay.py", *map(str, words)])
        script.main()
        return capsys.readouterr().out

    yield call
    torch.set_num_threads(threads)


def check_ledger(ledger: dict, name: str, seeds: list[int], effort: int = 1) -> None:
    """All fields, the same seeds at every delay, a curve and an error in each run."""
    tail = f"-x{effort}" if effort > 1 else ""
    assert set(ledger) == FIELDS and ledger["name"] == f"delay-{name}{tail}"
    assert ledger["effort"] == effort
    assert ledger["seeds"] == seeds and ledger["hardware"]["threads"] == 1
    assert ledger["command"].startswith("python chapters/runs/delay.py")
    assert ledger["model"] == {"name": name, "state_numbers": 32}
    assert {"python", "torch", "numpy", "s4lite"} <= set(ledger["versions"])
    runs = [run for each in ledger["delays"].values() for run in each["runs"]]
    assert abs(ledger["wall_seconds"] - sum(run["seconds"] for run in runs)) < 0.2
    keys = ("error", "least_squares", "closed_form") if name == "legt" else ("error",)
    for each in ledger["delays"].values():
        assert [run["seed"] for run in each["runs"]] == seeds
        for run in each["runs"]:
            assert run["curve"][-1][0] == each["updates"]
            assert run["parameters"] == ledger["parameters"] and run["commit"]
            assert all(0 < run[key] < 2 for key in keys)


@pytest.mark.parametrize("name", MODELS)
def test_script_writes_resumes_and_repeats(run, tmp_path, name):
    small = ["--model", name, "--delay", 20, "--updates", 2, "--batch", 2, "--out", tmp_path]
    said = run(*small, "--seeds", 0)
    assert said.count("delay 20, seed") == 1
    said = run(*small, "--seeds", 0, 1)  # seed 0 is there already
    assert "seed 1" in said and "seed 0" not in said
    path = tmp_path / f"delay-{name}.json"
    ledger = json.loads(path.read_text())
    check_ledger(ledger, name, [0, 1])
    assert run(*small, "--seeds", 0, 1) == "" and json.loads(path.read_text()) == ledger
    with pytest.raises(SystemExit, match="another budget"):
        run(*small[:-4], "--updates", 3, "--batch", 2, "--out", tmp_path)
    path.unlink()
    run(*small, "--seeds", 1)
    again, first = json.loads(path.read_text())["delays"]["20"]["runs"][0], ledger["delays"]["20"]
    assert {k: again[k] for k in ("seed", "curve", "error")} == {
        k: first["runs"][1][k] for k in ("seed", "curve", "error")
    }


def test_metric(script):
    y = torch.randn(2, 80, 1)
    assert script.relative_rms(torch.zeros_like(y), y, 40) == 1
    assert script.relative_rms(y, y, 40) == 0
    wrong = y.clone()
    wrong[:, :50] = 99.0  # before 1.25 delays nothing counts
    assert script.relative_rms(wrong, y, 40) == 0


@pytest.mark.parametrize("name", MODELS)
def test_models_hold_as_many_numbers(script, name):
    net = script.make(name, 20)
    layer = net if name == "legt" else net.layer
    assert layer.initial_state(1).numel() == script.N
    legt = sum(p.numel() for p in script.make("legt", 20).parameters())
    assert sum(p.numel() for p in net.parameters()) >= legt
    assert net(torch.zeros(2, 40, 1)).shape == (2, 40, 1)


def test_effort_multiplies_the_updates(run, tmp_path):
    small = ["--model", "lstm", "--delay", 20, "--updates", 2, "--batch", 2, "--out", tmp_path]
    run(*small, "--seeds", 0, "--effort", 3)
    ledger = json.loads((tmp_path / "delay-lstm-x3.json").read_text())
    check_ledger(ledger, "lstm", [0], effort=3)
    assert ledger["delays"]["20"]["updates"] == 6
    with pytest.raises(SystemExit, match="another budget"):
        run(*small[:4], "--updates", 3, *small[6:], "--seeds", 0, "--effort", 3)


def test_rates_are_chosen_on_sequences_of_their_own(script, run, monkeypatch):
    monkeypatch.setattr(script, "BUDGET", {100: (8, 2)})
    assert set(script.rates("legt")) == set(script.RATES)
    assert set(script.RATE.values()) <= set(script.RATES)
    said = run("--rates", "--model", "legt")
    assert all(str(rate) in said for rate in script.RATES)


@pytest.mark.parametrize("path", sorted(RUNS.glob("delay-*.json")), ids=lambda path: path.stem)
def test_committed_ledger(script, path):
    ledger = json.loads(path.read_text())
    name, effort = ledger["model"]["name"], ledger["effort"]
    assert ledger["name"] == path.stem
    check_ledger(ledger, name, [0, 1, 2], effort)
    assert [int(delay) for delay in ledger["delays"]] == sorted(script.BUDGET)
    for delay, (updates, batch) in script.BUDGET.items():
        each = ledger["delays"][str(delay)]
        assert (each["updates"], each["batch"]) == (effort * updates, batch)


def test_every_model_is_in_the_ledger():
    assert {f"delay-{name}" for name in MODELS} <= {path.stem for path in RUNS.glob("*.json")}


def test_the_chapter_reads_the_ledger():
    notebook = json.loads((ROOT / "chapters" / "07_first_ssms.ipynb").read_text())
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert any("runs" in source and "delay-" in source and "json" in source for source in code)
