"""Forecasts that need no training, and what they score."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.data.floors import _stretches, fit_linear, floors, repeat
from s4lite.data.forecasting import Forecasting, Windows
from s4lite.data.series import published

pytestmark = pytest.mark.filterwarnings("ignore:.*ECL.csv has")  # a made one is short
KEPT = Path(__file__).parents[2] / "chapters" / "data" / "forecasting_floors.json"


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), st.integers(1, 60), st.data())
def test_repeat_goes_on_as_before(period, horizon, data):
    x = torch.arange(20 * 3.0).reshape(3, 20)
    got = repeat(x, period, horizon)
    assert got.shape == (3, horizon)
    long = x[:, -period:].repeat(1, horizon)[:, :horizon]
    assert torch.equal(got, long)


def test_repeat_refuses():
    x = torch.zeros(2, 5)
    for period in (0, 6):
        with pytest.raises(ValueError, match="want period >= 1 and <= 5"):
            repeat(x, period, 3)
    with pytest.raises(ValueError, match="want horizon >= 1"):
        repeat(x, 1, 0)
    with pytest.raises(TypeError, match="want period as an int"):
        repeat(x, 1.0, 3)


def windows_of(series, context, horizon, stop=None):
    rows = torch.as_tensor(np.atleast_2d(series.T).T, dtype=torch.float32)
    return Windows(rows, rows.shape[1], range(stop or len(rows)), context, horizon)


@pytest.mark.parametrize("columns", [1, 3])
def test_linear_is_ridge_regression(columns):
    series = np.random.default_rng(0).normal(size=(700, columns)).cumsum(0) / 10
    windows = windows_of(series, 12, 5)
    x, y = [], []
    for u, v in windows:
        for c in range(columns):
            last = u[11, c]
            x.append((u[:12, c] - last).double())
            y.append((v[:, c] - last).double())
    x, y = torch.stack(x), torch.stack(y)
    ridge = (0.01 * len(x)) ** 0.5 * torch.eye(12, dtype=torch.float64)  # as rows of data
    zeros = torch.zeros(12, 5, dtype=torch.float64)
    W = torch.linalg.lstsq(torch.cat([x, ridge]), torch.cat([y, zeros])).solution
    got = fit_linear(windows, 0.01)(x[:9] + 4)
    assert (got - (4 + x[:9] @ W)).abs().max() < 1e-9


def test_linear_finds_a_rhythm_whatever_the_level():
    k = np.arange(900)
    series = np.sin(2 * np.pi * k / 24) + 0.5 * np.cos(2 * np.pi * k / 7)
    forecast = fit_linear(windows_of(series, 60, 20, stop=600), 1e-9)
    for level in (0, 100):
        x = torch.as_tensor(series[700:760] + level)[None]
        assert (forecast(x)[0] - torch.as_tensor(series[760:780] + level)).abs().max() < 1e-3


def test_linear_refuses():
    for ridge in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="want ridge > 0"):
            fit_linear(windows_of(np.arange(50.0), 5, 3), ridge)


def test_linear_takes_single_precision():
    windows = windows_of(np.random.default_rng(3).normal(size=200), 9, 4)
    forecast, x = fit_linear(windows), torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    assert forecast(x).dtype == torch.float64 and torch.equal(forecast(x), forecast(x.double()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ECL in small, a rhythm of a day and noise."""
    folder, rng = tmp_path_factory.mktemp("floors"), np.random.default_rng(1)
    k = np.arange(1000)
    values = 5 + np.sin(2 * np.pi * k / 24)[:, None] + 0.1 * rng.normal(size=(1000, 321))
    first = np.datetime64("2012-01-01", "h")
    rows = [f"{str(first + i).replace('T', ' ')}:00:00," + ",".join(f"{v:.4f}" for v in x)
            for i, x in enumerate(values)]  # fmt: skip
    header = "date," + ",".join(f"MT_{c:03d}" for c in range(321))
    (folder / "ECL.csv").write_text("\n".join([header, *rows]))
    return folder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_floors_are_means_over_windows_and_leads(folder, split):
    task = Forecasting(folder, series="ecl", horizon=30, context=48, level=False)
    scores, part = floors(task, split), getattr(task.splits(), split)
    errors = {"mean": [], "last": [], "day": []}
    for u, y in part:
        x, y = u[:48, 0].double().numpy(), y[:, 0].double().numpy()
        errors["mean"].append(y)
        errors["last"].append(x[-1] - y)
        errors["day"].append(np.concatenate([x[-24:], x[-24:]])[:30] - y)
    for name, error in errors.items():
        error = np.concatenate(error)
        assert abs(scores[name]["mse"] - np.square(error).mean()) < 1e-9
        assert abs(scores[name]["mae"] - np.abs(error).mean()) < 1e-9
    assert list(scores) == ["mean", "last", "day", "linear"]
    assert scores["linear"]["mse"] < scores["day"]["mse"] < scores["last"]["mse"]


def test_floors_of_all_columns(folder):
    """Means over the columns; and never more rows at once than for one column."""
    task = Forecasting(folder, series="ecl", horizon=5, context=24, univariate=False)
    test = Forecasting(folder, series="ecl", horizon=5, context=24, univariate=False, level=False)
    u, y, _ = test.splits().test.__getitems__(range(len(test.splits().test)))
    scores = floors(task)
    assert abs(scores["mean"]["mse"] - y.double().square().mean()) < 1e-9
    assert abs(scores["last"]["mae"] - (u[:, 23:24, :321].double() - y).abs().mean()) < 1e-9
    assert max(len(x) for x, _ in _stretches(task.splits().train)) <= 512


def test_floors_do_not_depend_on_what_stands_beside_the_values(folder):
    options = [{"inputs": "full"}, {"inputs": "s4"}, {"level": False}]
    first, *others = (floors(Forecasting(folder, series="ecl", context=24, **o)) for o in options)
    assert all(scores == first for scores in others)


def test_floors_refuse(folder):
    with pytest.raises(ValueError, match="want one of train, val, test, got 'all'"):
        floors(Forecasting(folder, series="ecl"), "all")
    with pytest.raises(ValueError, match="want a context of a day, 24 samples, or more, got 23"):
        floors(Forecasting(folder, series="ecl", context=23))


def test_what_the_book_keeps_is_whole():
    """Every published horizon of every series that is there, of the files that are official."""
    kept = json.loads(KEPT.read_text())
    assert {"etth1", "etth2", "ettm1", "weather"} <= set(kept["series"])
    for name, entry in kept["series"].items():
        series = published(name)
        assert tuple(map(int, entry["horizons"])) == series.horizons
        assert series.source is None or entry["digest"] == series.source.digest
        for horizon, scores in entry["horizons"].items():
            assert scores["windows"] == entry["parts"]["samples"][2] - int(horizon) + 1
            for kind in ("mean", "last", "day", "linear"):
                mse, mae = scores[kind]["mse"], scores[kind]["mae"]
                assert mae > 0 and mae**2 <= mse * (1 + 1e-4)  # Jensen
