"""The maker of the looks trains as a run does, and writes its file whole or not at all."""

import functools
import json

import make_looks
import pytest
import torch

from s4lite import SequenceModel
from s4lite.data.forecasting import Windows
from s4lite.data.task import Splits, Task
from s4lite.train.job import Job
from s4lite.train.ledger import read
from s4lite.train.running import run


class Waves(Task):
    """A noisy wave, and its next three samples."""

    name, d_input, d_output, length, metric = "waves", 1, 1, 15, "mse"

    def __init__(self):
        super().__init__(download=False)
        noise = torch.randn(120, generator=torch.Generator().manual_seed(0))
        rows = (torch.arange(120.0).sin() + noise / 9)[:, None]
        parts = (range(60), range(60, 90), range(90, 120))
        self.parts = Splits(*(Windows(rows, 1, part, 12, 3) for part in parts))

    def splits(self):
        return self.parts


def job(**options):
    build = functools.partial(SequenceModel, 1, 1, 4, 1, d_state=4, dropout=0.2, pool=None)
    settings = {"lr": 0.01, "schedule": "cosine", "warmup": 2}
    likes = {"learner": settings, "epochs": 4, "batch_size": 5, "shares": 2, "seed": 3}
    return Job("waves", Waves(), build, **likes | options)


def test_it_trains_as_a_run_does(tmp_path):
    rows = make_looks.looks(job(), 3)
    done = run(job(), tmp_path, accelerator="cpu", progress=False)
    line = read(tmp_path / "waves.json")
    want = [row["val"]["mse"] for row in line.curve][:3]
    assert [row["val"] for row in rows] == pytest.approx(want, abs=1e-5)
    everything = make_looks.looks(job(), 4)
    assert everything[:3] == rows
    chosen = everything[done.best["epoch"]]
    assert chosen["test"] == pytest.approx(done.scores["mse"], abs=1e-5)


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_looks, "of", lambda folder, case: {"case": case})
    assert make_looks.main([str(tmp_path), "-o", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / make_looks.FILE).read_text())
    assert [case["case"] for case in kept["cases"]] == list(make_looks.CASES)
    monkeypatch.undo()
    assert make_looks.main([str(tmp_path / "nowhere"), "-o", str(tmp_path)]) == 3
    assert json.loads((tmp_path / make_looks.FILE).read_text()) == kept
    assert "ETTh1.csv, which is not there" in capsys.readouterr().err
