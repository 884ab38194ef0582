"""A text task under Lightning: each symbol is scored once, whatever the batches are."""

import numpy as np
import pytest
import torch
from tiny import trainer
from torch import nn

from s4lite.data.corpora import Corpus
from s4lite.data.counts import Counts
from s4lite.data.files import Source, digest_of
from s4lite.data.text import Letters
from s4lite.nn.layer import S4D
from s4lite.nn.model import SequenceModel
from s4lite.train.data import TaskData
from s4lite.train.module import Learner


@pytest.fixture
def task(tmp_path):
    rng = np.random.default_rng(0)
    content = "".join(rng.choice([*"ab", "cd ", "efg"], 1500)).encode()
    (tmp_path / "x").write_bytes(content)
    plain = (Source("x", "", digest_of(tmp_path / "x")),)
    sizes = (len(content) - 700, 300, 400)
    return Letters(tmp_path, corpus=Corpus("x", ("x",), None, plain, sizes), length=32)


class Table(nn.Module):
    """A model of order one, as logits."""

    def __init__(self, counts):
        super().__init__()
        rows = [np.log(counts.chances(np.array([i]))) for i in range(counts.V)]
        self.rows = nn.Parameter(torch.from_numpy(np.array(rows)))

    def forward(self, u, lengths=None):
        return self.rows[u]


@pytest.mark.parametrize(("batch", "context"), [(1, 0), (5, 7), (64, 31)])
def test_the_score_is_that_of_the_text(task, tmp_path, batch, context):
    """For a model that needs one symbol, windows make no difference: the mean over the text."""
    task.context = context
    counts = Counts(task.symbols("train"), task.d_input, 1)
    want = counts.bits(task.symbols("test"))[1:].mean()
    learner, data = Learner(Table(counts), "bpc"), TaskData(task, batch)
    (scores,) = trainer(tmp_path).test(learner, datamodule=data, verbose=False)
    assert abs(scores["test/bpc"] - want) < 1e-6  # Lightning logs in 32 bits


def test_a_model_learns_to_read(task, tmp_path):
    torch.manual_seed(0)
    V = task.d_input
    options = {"layer": S4D, "d_state": 8, "pool": None, "embedding": True}
    model = SequenceModel(V, V, 16, 1, **options)
    learner = Learner(model, task.metric, lr=0.02, ssm_lr=0.01)
    data, runner = TaskData(task, 8), trainer(tmp_path, max_epochs=2)
    runner.fit(learner, datamodule=data)
    (scores,) = runner.test(learner, datamodule=data, verbose=False)
    alone = Counts(task.symbols("train"), V, 0).bits(task.symbols("test"))[1:].mean()
    assert scores["test/bpc"] < alone - 0.1
