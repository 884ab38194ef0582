"""The committed runs of recipes: what their command would do today is what they say they did."""

import json
import os
import shlex
from pathlib import Path

import pytest
import torch

from s4lite.data.files import MissingData
from s4lite.recipes.catalogue import recipe
from s4lite.recipes.jobs import job
from s4lite.train.job import facts_of
from s4lite.train.ledger import read, score

RUNS = Path(__file__).resolve().parents[2] / "chapters" / "runs"
TRAINED = [path for path in sorted(RUNS.glob("*.json")) if read(path).recipe]


def asked(command: str) -> dict:
    """The arguments of `job` that a command stands for."""
    words = shlex.split(command)
    assert words[:2] == ["s4lite", "train"]
    values = {"name": words[2], "overrides": {}}
    for option, value in zip(words[3::2], words[4::2], strict=True):
        if option == "--set":
            name, _, text = value.partition("=")
            values["overrides"][name] = text
        else:
            values[option.removeprefix("--")] = int(value) if option == "--seed" else value
    return values


def test_there_are_some():
    assert {"smnist-s4d-tiny", "lra-listops-s4d-tiny"} <= {path.stem for path in TRAINED}


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_the_command_makes_the_run_that_is_recorded(path, tmp_path):
    run, kept = read(path), json.loads(path.read_text(encoding="utf-8"))
    folder = os.environ.get("S4LITE_DATA_DIR", tmp_path)
    made = job(**asked(run.command), data_dir=folder, download=False)
    assert path.stem == made.name
    assert (run.settings["learner"], run.settings["epochs"]) == (made.learner, made.epochs)
    try:
        _ = made.task.d_input
    except MissingData:
        pytest.skip("its vocabulary is in the published files")
    facts = facts_of(made)
    assert repr(made.task) == run.task.get("shown", repr(made.task))
    for told in ("shown", "sequences"):  # which the ledger knows besides
        kept["task"].pop(told, None)
    assert {name: kept.get(name, {}) for name in facts} == facts
    torch.manual_seed(made.seed)
    assert sum(p.numel() for p in made.build().parameters()) == run.parameters


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_run_is_whole(path):
    run = read(path)
    epochs = [row["epoch"] for row in run.curve]
    assert epochs == list(range(len(epochs))) and len(epochs) <= run.settings["epochs"]
    assert score(run) is not None and len(run.commit) == 40
    size = recipe(run.recipe).sizes[run.size]
    if size.train or size.val or size.test:
        assert any("a part of the sequences" in note for note in run.notes)
    assert set(size.notes) <= set(run.notes)
