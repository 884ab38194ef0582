"""Tables of results: every number is one of the ledger."""

import math
from pathlib import Path

import pytest
from results import MARKS, beside, found, ours, readme, table, told

from s4lite.train.ledger import Run, write

ROOT = Path(__file__).resolve().parents[2]


def put(folder, name, seed=0, **changes):
    """A run's file."""
    likes = {"command": "c", "commit": "ab", "hardware": {}, "versions": {}, "wall_seconds": 1.0}
    likes |= {"parameters": 1234, "cpu_seconds": 120.0, "recipe": "smnist", "size": "tiny"}
    likes |= {"model": {"name": "s4d"}, "scores": {"accuracy": 0.9}, "seeds": [seed]}
    likes |= {"task": {"name": "smnist", "metric": "accuracy", "sequences": {"test": 400}}}
    likes |= {"notes": ["size tiny is a recipe of ours, not a published one", "a part"]}
    write(Run(name=name, **likes | changes), folder)


def test_seeds_stand_together_and_what_was_changed_apart(tmp_path):
    for seed, score in enumerate((0.9, 0.8, 1.0)):
        put(tmp_path, f"a{seed}", seed, scores={"accuracy": score})
    for name, ahead in (("b", "168"), ("c", "48"), ("d", "24")):
        put(tmp_path, name, recipe="etth1", overrides={"task.horizon": ahead})
    put(tmp_path, "e", model={"name": "lstm"})
    put(tmp_path, "f", recipe="", model={})  # no recipe's: as those of chapter 7
    put(tmp_path, "g", scores={})
    got = found(folder=tmp_path)
    assert [each.title for each in got[2:]] == [f"etth1, horizon {h}" for h in (24, 48, 168)]
    assert [len(each.runs) for each in got] == [1, 3, 1, 1, 1]
    digits = got[1]
    assert digits.mean == pytest.approx(0.9) and digits.scores == [0.9, 0.8, 1.0]
    assert digits.doubt == pytest.approx(2 * math.sqrt(0.9 * 0.1 / 400)) == 0.03
    assert digits.minutes == 2.0 and digits.notes == ["a part"]
    assert ours(digits) == "90.0 ± 3.0 % (80.0 to 100.0 %, 3 seeds)"
    assert found("smnist", model="s4d", folder=tmp_path)[0].runs == digits.runs
    assert found("smnist", size="small", folder=tmp_path) == []


def test_what_was_printed_for_this_model_comes_first(tmp_path):
    every = [{"printed": "S4", "value": 0.9}, {"printed": "X", "value": 0.7}]
    put(tmp_path, "a", published={"printed": "X", "value": 0.7, "all": every})
    put(tmp_path, "b", published={"all": every}, model={"name": "lstm"})
    put(tmp_path, "c", model={"name": "tcn"})
    task = {"name": "smnist-stand-in", "metric": "accuracy"}
    put(tmp_path, "d", published={"all": every}, task=task, model={"name": "s4"})
    assert found(model="s4", folder=tmp_path)[0].title == "smnist-stand-in"
    assert {beside(each) for each in found(folder=tmp_path)} == {
        "X 70.0 %; S4 90.0 %",
        "S4 90.0 %; X 70.0 %",
        "",
    }


def test_scores_as_people_read_them():
    assert told("accuracy", 0.98512) == "98.5 %" and told("accuracy", 0.5, 0.01) == "50.0 ± 1.0 %"
    assert told("mse", 0.03127) == "0.031" and told("perplexity", 312.34) == "312.3"


def test_a_table_has_a_line_an_experiment_and_notes_below(tmp_path):
    put(tmp_path, "a"), put(tmp_path, "b", recipe="scifar", notes=["a part", "grey"])
    task = {"name": "etth1-24", "metric": "mse"}
    put(tmp_path, "c", recipe="etth1", task=task, scores={"mse": 0.5}, notes=[])
    lines = table(found(folder=tmp_path)).splitlines()
    assert len({line.count(" | ") for line in lines[:5]}) == 1
    assert lines[2] == "| smnist, tiny (1) | s4d, 1,234 | 90.0 ± 3.0 % |  | 2.0 |"
    assert lines[3].startswith("| scifar, tiny (1 2) |")
    assert lines[4] == "| etth1, tiny | s4d, 1,234 | mse 0.500 |  | 2.0 |"
    assert lines[5:] == ["", "1. a part", "2. grey"]


def test_the_readme_has_the_results_of_the_ledger():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme(text) == text
    assert len(found()) == text.split(MARKS[0])[1].split(MARKS[1])[0].count("\n| ") - 2
    with pytest.raises(ValueError, match="want <!-- results"):
        readme("no marks")
