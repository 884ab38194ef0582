"""The official series, where S4LITE_DATA_DIR names a folder that has them."""

import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from s4lite.data.files import MissingData
from s4lite.data.floors import floors
from s4lite.data.forecasting import Forecasting
from s4lite.data.series import SERIES, SeriesFile, published
from s4lite.data.tables import read_table

FOLDER = os.environ.get("S4LITE_DATA_DIR")
KEPT = Path(__file__).parents[2] / "chapters" / "data" / "forecasting_floors.json"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="wants S4LITE_DATA_DIR, a folder with official files"),
]


def have(name, kind=SeriesFile, **options):
    """The task, or a skip if its file is not in the folder."""
    task = kind(FOLDER, series=name, download=False, **options)
    try:
        task.prepare()
    except MissingData:
        pytest.skip(f"no {published(name).file} in {Path(FOLDER).name}")
    return task


ROWS = {"etth1": 17_420, "etth2": 17_420, "ettm1": 69_680, "ettm2": 69_680, "weather": 35_064}
PARTS = {
    "etth1": (8640, 2880, 2880),
    "etth2": (8640, 2880, 2880),
    "ettm1": (34_560, 11_520, 11_520),
    "ettm2": (34_560, 11_520, 11_520),
    "weather": (24_544, 3508, 7012),
}
SPANS = {
    "etth1": ("2016-07-01T00:00", "2018-06-26T19:00", 60),
    "etth2": ("2016-07-01T00:00", "2018-06-26T19:00", 60),
    "ettm1": ("2016-07-01T00:00", "2018-06-26T19:45", 15),
    "ettm2": ("2016-07-01T00:00", "2018-06-26T19:45", 15),
    "weather": ("2010-01-01T00:00", "2013-12-31T23:00", 60),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_columns_and_parts(name):
    task = have(name, univariate=False)
    table, parts = task.read()
    assert table.values.shape == (ROWS[name], published(name).columns)
    assert tuple(map(len, parts)) == PARTS[name]
    first, last, minutes = SPANS[name]
    assert [str(t) for t in table.times[[0, -1]]] == [first, last]
    assert set(np.diff(table.times).astype(int)) == {minutes} and 1440 // minutes == task.series.day
    known = table.values[: len(parts[0])]
    assert np.abs(known.mean(0)).max() < 1e-9 and np.abs(known.std(0) - 1).max() < 1e-9


@pytest.mark.parametrize("name", ROWS)
def test_the_target(name):
    task = have(name)
    table, _ = task.read()
    target = {"weather": "WetBulbCelsius"}.get(name, "OT")
    assert table.columns == (target,)
    every = read_table(task.path())
    column = every.values[:, every.columns.index(target)]
    assert np.allclose(table.values[:, 0] * task.std + task.mean, column)
    assert every.columns[-1] == target  # last in all of them


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("inputs", ["full", "s4"])
def test_windows_of_every_published_horizon(name, inputs):
    for horizon in published(name).horizons:
        task = have(name, Forecasting, horizon=horizon, inputs=inputs)
        for part, samples in zip(task.splits(), PARTS[name], strict=True):
            assert len(part) == samples - horizon + 1 - 384 * (part.first == 0)
        u, y = task.splits().test[0]
        assert u.shape == (384 + horizon, task.d_input) and y.shape == (horizon, 1)
        assert u.isfinite().all() and abs(u[:, 0]).max() < 12
        assert u[383, 0] == 0 and not u[384:, 0].any()  # less the last value


def test_the_test_of_ett_begins_in_october():
    table, parts = have("etth1").read()
    assert table.times[parts[2].start].tolist() == datetime(2017, 10, 24)
    assert table.times[parts[2].stop - 1].tolist() == datetime(2018, 2, 20, 23)
    assert len(table.times) - parts[2].stop == 3020  # in no part


@pytest.mark.parametrize("name", [name for name in SERIES if name in ROWS and name != "ettm2"])
def test_floors_are_those_of_the_book(name):
    kept = json.loads(KEPT.read_text())
    entry, horizons = kept["series"][name], published(name).horizons
    for horizon in (horizons[0], horizons[2]):
        task = have(name, Forecasting, horizon=horizon, context=kept["context"])
        want = entry["horizons"][str(horizon)]
        for kind, score in floors(task).items():
            assert abs(score["mse"] - want[kind]["mse"]) < 2e-5
            assert abs(score["mae"] - want[kind]["mae"]) < 2e-5


def test_the_last_batch_hardly_matters():
    """What the published loops leave out changes no printed digit of ETTh1 at 24 by more than 1."""
    every, cut = (have("etth1", Forecasting, multiple=m) for m in (1, 50))
    assert (len(every.splits().test), len(cut.splits().test)) == (2857, 2850)
    assert abs(floors(every)["last"]["mse"] - floors(cut)["last"]["mse"]) < 1e-3
