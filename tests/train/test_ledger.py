"""The ledger: written whole, read back, and older files of it understood."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

from s4lite.nn.folders import versions
from s4lite.train.ledger import Run, as_json, commit, hardware, read, score, table, write

RUNS = Path(__file__).resolve().parents[2] / "chapters" / "runs"


def some_run(**changes):
    likes = {
        "name": "smnist-s4d-tiny",
        "command": "s4lite train smnist",
        "commit": "ab",
        "seeds": [0],
    }
    likes |= {
        "hardware": hardware(),
        "versions": versions(),
        "wall_seconds": 90.0,
        "parameters": 10,
    }
    likes |= {"recipe": "smnist", "size": "tiny", "model": {"name": "s4d"}, "notes": ["10 % of it"]}
    likes |= {
        "task": {"name": "smnist", "metric": "accuracy"},
        "scores": {"accuracy": 0.5, "loss": 1.0},
    }
    likes |= {"published": {"value": 0.99, "source": "a paper, table 1"}}
    return Run(**likes | changes)


def test_a_run_comes_back(tmp_path):
    run = some_run(curve=[{"epoch": 0, "val": {"accuracy": 0.1}}], more={"extra": [1]})
    path = write(run, tmp_path)
    assert path == tmp_path / "smnist-s4d-tiny.json" and read(path) == run
    assert json.loads(path.read_text())["extra"] == [1]
    assert write(run, tmp_path / "other.json") == tmp_path / "other.json"


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.json")), ids=lambda path: path.stem)
def test_every_file_of_the_ledger_is_a_run_and_stays_as_it_is(tmp_path, path):
    run = read(path)
    assert run.name == path.stem and run.seeds and run.parameters > 0 and run.wall_seconds > 0
    assert {"python", "torch", "s4lite"} <= run.versions.keys() and run.hardware["cpu"]
    again = json.loads(write(run, tmp_path).read_text())
    assert again == json.loads(path.read_text())


def test_the_table_of_all_of_them():
    rows = table(RUNS)
    assert len(rows) == len(list(RUNS.glob("*.json")))
    assert {row["model"] for row in rows} >= {"gru", "legt", "lstm"}


def test_rows_have_ours_beside_the_published(tmp_path):
    write(some_run(), tmp_path), write(some_run(name="a", seeds=[1], scores={}), tmp_path)
    write(some_run(name="b", recipe="fsdd", published={}), tmp_path)
    rows = table(tmp_path)
    assert [row["name"] for row in rows] == ["b", "smnist-s4d-tiny", "a"]
    assert [row["ours"] for row in rows] == [0.5, 0.5, None]
    assert [row["published"] for row in rows] == [None, 0.99, 0.99]
    assert rows[1]["source"] == "a paper, table 1" and rows[1]["minutes"] == 1.5
    assert rows[1]["notes"] == ["10 % of it"] and rows[1]["metric"] == "accuracy"
    assert table(tmp_path / "none") == []


def test_score():
    assert score(some_run()) == 0.5 and score(some_run(task={})) is None


def test_numbers_that_are_none_become_null(tmp_path):
    run = some_run(
        curve=[
            {"val": {"loss": math.nan, "x": np.float32(0.5), "n": np.int64(3)}, "y": (1, math.inf)}
        ]
    )
    held = json.loads(write(run, tmp_path).read_text())["curve"][0]
    assert held == {"val": {"loss": None, "x": 0.5, "n": 3}, "y": [1, None]}
    assert as_json({1: Path("a"), "b": None, "c": True}) == {"1": "a", "b": None, "c": True}


@pytest.mark.parametrize("name", ["", "a/b", "a b", "../x"])
def test_bad_names(tmp_path, name):
    with pytest.raises(ValueError, match="want a name of letters"):
        write(some_run(name=name), tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "a"}', "3"])
def test_what_is_no_run(tmp_path, text):
    (path := tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"want a run's ledger in .*a\.json"):
        read(path)
    with pytest.raises(ValueError, match=r"a\.json"):
        table(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "b.json")


def test_a_full_disk_leaves_the_file_before(tmp_path, monkeypatch):
    write(some_run(), tmp_path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(some_run(parameters=11), tmp_path)
    assert (
        read(tmp_path / "smnist-s4d-tiny.json").parameters == 10 and len(os.listdir(tmp_path)) == 1
    )


def test_hardware_by_product_name():
    found = hardware(processes=2)
    assert found["cpu"] and found["threads"] >= 1 and found["processes"] == 2
    assert "processes" not in hardware() and "gpu" not in hardware()


def test_commit():
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", commit())


def test_commit_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit() == ""


@pytest.mark.parametrize("name", ["task", "model", "scores", "published", "wall_seconds", "notes"])
@pytest.mark.parametrize("value", [None, "x", 3, [], {}, True])
def test_fields_of_another_kind(tmp_path, name, value):
    held = json.loads(write(some_run(), tmp_path).read_text())
    (path := tmp_path / "a.json").write_text(json.dumps(held | {name: value}))
    right = {"notes": list, "wall_seconds": (int, float)}.get(name, dict)
    if isinstance(value, right) and not isinstance(value, bool):
        assert len(table(tmp_path)) == 2
        return
    with pytest.raises(ValueError, match=rf"want a run's ledger in .*a\.json.*want {name} as"):
        read(path)
    with pytest.raises(ValueError, match=r"a\.json"):
        table(tmp_path)


def test_texts_and_numbers_become_plain():
    import torch

    plain = as_json({"a": torch.__version__, "b": np.bool_(True), "c": np.float32("nan")})
    assert type(plain["a"]) is str and plain["b"] is True and plain["c"] is None
