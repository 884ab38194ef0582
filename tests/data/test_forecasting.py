"""Windows of a series, and the task, on files of the official form made here."""

import pickle
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.data import DataLoader

from s4lite.data.files import DamagedData, MissingData, digest_of
from s4lite.data.forecasting import INPUTS, Forecasting, Windows
from s4lite.data.series import SERIES, published

pytestmark = pytest.mark.filterwarnings("ignore:.*ECL.csv has")  # made ones are short
ETT = "HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"


class Made(Forecasting):
    """The file that is there is the official one."""

    def sources(self):
        there = [(s, self.data_dir / s.name) for s in super().sources()]
        return tuple(replace(s, digest=digest_of(path)) for s, path in there if path.exists())


def write(path, columns, n, minutes):
    """A day's rhythm and steps at random."""
    rng = np.random.default_rng(n)
    width = columns.count(",") + 1
    rhythm = 9 * np.sin(2 * np.pi * np.arange(n) * minutes / 1440)[:, None]
    values = (rhythm + rng.normal(0, 0.3, (n, width)).cumsum(0)).round(3)
    first, step = datetime(2016, 7, 1), timedelta(minutes=minutes)
    rows = [",".join([str(first + k * step), *map(str, x)]) for k, x in enumerate(values.tolist())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"date,{columns}", *rows]))
    return values, [first + k * step for k in range(n)]


FORMS = {
    "etth1": (ETT, 14_500, 60),
    "ettm1": (ETT, 57_700, 15),
    "weather": (
        "Visibility," + ",".join(f"x{k}" for k in range(10)) + ",WetBulbCelsius",
        3_000,
        60,
    ),
    "ecl": (",".join(f"MT_{k:03d}" for k in range(321)), 400, 60),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder, and what stands in the files."""
    folder, files = tmp_path_factory.mktemp("series"), {}
    for name, form in FORMS.items():
        source = published(name).source
        place = source.name if source else "ECL.csv"
        files[name] = write(folder / place, *form)
    return folder, files


# ------------------------------------------------------------------ windows


def rows_of(n, d, f=0):
    return torch.arange(1.0, n * (d + f) + 1).reshape(n, d + f)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_windows_are_the_definition(data):
    n = data.draw(st.integers(5, 60))
    a = data.draw(st.integers(0, n - 2))
    b = data.draw(st.integers(a + 1, n))
    T, H = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 12))
    d, mask, level = (
        data.draw(st.integers(1, 3)),
        data.draw(st.booleans()),
        data.draw(st.booleans()),
    )
    rows = torch.cat([rows_of(n, d), torch.zeros(n, int(mask))], 1)
    fits = [s for s in range(n) if s + T >= a and s + T + H <= b]
    if not fits:
        with pytest.raises(ValueError, match="want at least 1 windows of"):
            Windows(rows, d, range(a, b), T, H, mask=mask)
        return
    windows = Windows(rows, d, range(a, b), T, H, mask=mask, level=level)
    assert len(windows) == len(fits)
    for (u, y), s in zip(windows, fits, strict=True):  # stops by itself
        less = rows[s + T - 1, :d] * level
        assert torch.equal(u[:T, :d], rows[s : s + T, :d] - less) and not u[T:, :d].any()
        assert torch.equal(y, rows[s + T : s + T + H, :d] - less)
        if mask:
            assert u[:, d].tolist() == [0] * T + [1] * H


def test_batches_are_their_items_and_share_no_memory():
    rows = rows_of(50, 2, 3)
    before = rows.clone()
    windows = Windows(rows, 2, range(20, 50), 8, 4, mask=True)
    chosen = [3, 0, len(windows) - 1, 3]
    batch = windows.__getitems__(chosen)
    assert batch.u.shape == (4, 12, 5) and batch.y.shape == (4, 4, 2) and batch.lengths is None
    for u, y, i in zip(batch.u, batch.y, chosen, strict=True):
        assert torch.equal(u, windows[i][0]) and torch.equal(y, windows[i][1])
    batch.u.fill_(-1), batch.y.fill_(-1)
    assert torch.equal(rows, before)
    loaded = list(DataLoader(windows, 7, collate_fn=lambda batch: batch, num_workers=0))
    assert torch.equal(torch.cat([b.u for b in loaded]), torch.stack([u for u, _ in windows]))


def test_targets_of_the_parts_are_apart_and_none_is_left_out():
    rows, parts = rows_of(90, 1), (range(60), range(60, 75), range(75, 90))
    T, H = 9, 4
    asked = [{int(t) for _, y in Windows(rows, 1, part, T, H) for t in y} for part in parts]
    assert asked[0] == set(range(T + 1, 61))  # all but the first context; rows count from 1
    assert asked[1] == set(range(61, 76)) and asked[2] == set(range(76, 91))
    contexts = {int(t) for u, _ in Windows(rows, 1, parts[1], T, H) for t in u[:T]}
    assert min(contexts) == 61 - T  # it looks back


def test_blank_stands_in_the_horizon_only():
    rows, blank = rows_of(40, 1, 3), torch.tensor([7.0, 8.0, 9.0])
    u, _ = Windows(rows, 1, range(40), 6, 3, blank=blank)[5]
    assert torch.equal(u[:6], rows[5:11]) and torch.equal(u[6:, 1:], blank.expand(3, 3))
    u, _ = Windows(rows, 1, range(40), 6, 3)[5]
    assert torch.equal(u[:, 1:], rows[5:14, 1:])


def test_multiple_leaves_out_the_end():
    rows = rows_of(100, 1)
    every = Windows(rows, 1, range(100), 10, 5)
    assert len(every) == 86
    some = Windows(rows, 1, range(100), 10, 5, multiple=32)
    assert len(some) == 64 and torch.equal(some[63][0], every[63][0])
    with pytest.raises(ValueError, match=r"want at least 87 windows of 10 \+ 5 .* got 86"):
        Windows(rows, 1, range(100), 10, 5, multiple=87)


def test_windows_refuse():
    rows = rows_of(40, 2)
    windows = Windows(rows, 2, range(40), 6, 3)
    assert torch.equal(windows[-1][0], windows[len(windows) - 1][0])
    for i in (len(windows), -len(windows) - 1):
        with pytest.raises(IndexError):
            windows[i]
    for bad in ([len(windows)], [0, -1]):  # would look into another part
        with pytest.raises(IndexError, match="want windows from 0 to 31"):
            windows.__getitems__(bad)
    with pytest.raises(IndexError, match=r"want windows from 0 to 31, got \[\]"):
        windows.__getitems__([])
    with pytest.raises(TypeError, match="integer"):
        windows[1:3]
    for name in ("context", "horizon"):
        for wrong, error in ((0, ValueError), (2.0, TypeError), (True, TypeError)):
            sizes = {"context": 6, "horizon": 3} | {name: wrong}
            with pytest.raises(error, match=f"want {name}"):
                Windows(rows, 2, range(40), **sizes)
    with pytest.raises(ValueError, match=r"want rows \(n, 3 or more\), got \(40, 2\)"):
        Windows(rows, 2, range(40), 6, 3, mask=True)
    with pytest.raises(ValueError, match="want rows"):
        Windows(rows[:, 0], 1, range(40), 6, 3)
    with pytest.raises(ValueError, match="want blank as long as the features"):
        Windows(rows, 1, range(40), 6, 3, blank=torch.zeros(2))


def test_windows_refuse_targets_that_are_no_part_of_the_rows():
    rows = rows_of(40, 2)
    for targets in (range(-9, 30), range(0, 41), range(0, 40, 2), range(40, 0, -1), range(30, 20)):
        with pytest.raises(ValueError, match="want targets in a row among 40 rows, got range"):
            Windows(rows, 2, targets, 6, 3)
    with pytest.raises(TypeError, match="want targets as a range, got list"):
        Windows(rows, 2, list(range(40)), 6, 3)
    for wrong in (rows.numpy(), rows.long(), None):
        with pytest.raises(TypeError, match="want rows as a tensor of floats"):
            Windows(wrong, 2, range(40), 6, 3)


# ------------------------------------------------------------------ the task


@pytest.mark.parametrize("univariate", [True, False])
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("series", FORMS)
def test_shapes_are_as_said(made, series, inputs, univariate):
    folder, files = made
    task = Made(folder, series=series, horizon=12, context=30, inputs=inputs, univariate=univariate)
    assert task.name == f"{series}-12" + ("" if univariate else "-all") and task.metric == "mse"
    assert task.length == 42 and not task.tokens and not task.pairs
    d = 1 if univariate else files[series][0].shape[1]
    quarters = series == "ettm1"
    features = {
        "full": 5,
        "seasons": 7,
        "informer": 4 + quarters,
        "s4": 76 + 4 * quarters,
        "s4-lines": 4 + quarters,
        "values": 0,
    }[inputs]
    assert (task.d_input, task.d_output) == (d + features, d)
    n = len(files[series][0])
    for part, samples in zip(task.splits(), sizes(series, n), strict=True):
        assert len(part) == samples - 12 + 1 - 30 * (part.first == 0)
        batch = task.collate(part.__getitems__([0, len(part) - 1]))
        assert batch.u.shape == (2, 42, d + features) and batch.y.shape == (2, 12, d)
        assert batch.u.dtype == batch.y.dtype == torch.float32 and batch.lengths is None
        assert batch.u.isfinite().all() and not batch.u[:, 30:, :d].any()


def sizes(series, n):
    if series.startswith("ett"):
        month = 720 if series[3] == "h" else 2880
        return 12 * month, 4 * month, 4 * month
    return int(n * 0.7), n - int(n * 0.7) - int(n * 0.2), int(n * 0.2)


@pytest.mark.parametrize("series", FORMS)
def test_values_are_those_of_the_file(made, series):
    folder, files = made
    values, _ = files[series]
    target = values[:, 320 if series == "ecl" else -1]
    train, val, test = sizes(series, len(values))
    z = (target - target[:train].mean()) / target[:train].std()
    parts = Made(folder, series=series, horizon=6, context=20, level=False).splits()
    ends = (train, train + val, train + val + test)
    for part, first, end in zip(parts, (20, *ends[:2]), ends, strict=True):
        for window, last in ((part[0], first + 6), (part[-1], end)):
            u, y = window
            assert np.abs(u[:20, 0].numpy() - z[last - 26 : last - 6]).max() < 1e-5
            assert np.abs(y[:, 0].numpy() - z[last - 6 : last]).max() < 1e-5


def published_item(z, times, part, at, T, H, quarters):
    """The S4 code's item: borders with contexts, zeros, clock numbers zeroed in the horizon."""
    month = 30 * 24 * (4 if quarters else 1)
    begin = [0, 12 * month - T, 16 * month - T][part] + at
    seq_x = np.concatenate([z[begin : begin + T], np.zeros(H)])
    numbers = [
        (m.month, m.day, m.weekday(), m.hour, m.minute // 15)[: 4 + quarters]
        for m in times[begin : begin + T]
    ]
    mark = np.concatenate([numbers, np.zeros((H, 4 + quarters), int)]).astype(int)
    return seq_x, z[begin + T : begin + T + H], mark


@pytest.mark.parametrize("series", ["etth1", "ettm1"])
def test_s4_inputs_are_the_published_item(made, series):
    folder, files = made
    values, times = files[series]
    quarters, T, H = series == "ettm1", 50, 17
    train = values[: sizes(series, len(values))[0], -1]
    z = (values[:, -1] - train.mean()) / train.std()
    task = Made(folder, series=series, horizon=H, context=T, inputs="s4", level=False)
    places = np.cumsum([0, 13, 32, 7, 24])[: 4 + quarters]
    for k, part in enumerate(task.splits()):
        for at in (0, 77, len(part) - 1):
            seq_x, seq_y, mark = published_item(z, times, k, at, T, H, quarters)
            u, y = part[at]
            assert np.abs(u[:, 0].numpy() - seq_x).max() < 1e-5
            assert np.abs(y[:, 0].numpy() - seq_y).max() < 1e-5
            symbols = np.zeros((T + H, task.d_input - 1), np.float32)
            np.put_along_axis(symbols, mark + places, 1, 1)
            assert np.array_equal(u[:, 1:].numpy(), symbols)


def test_full_inputs_tell_the_time_and_where_the_horizon_begins(made):
    folder, files = made
    times = files["etth1"][1]
    u, _ = Made(folder, horizon=5, context=7).splits().val[3]
    first = times[8640 - 7 + 3]
    for k in range(12):
        angle = 2 * np.pi * (first + timedelta(hours=k)).hour / 24
        assert np.allclose(u[k, 1:3], [np.sin(angle), np.cos(angle)], atol=1e-6)
    assert u[:, 5].tolist() == [0] * 7 + [1] * 5


def test_the_same_twice_and_through_pickle(made):
    task = Made(made[0], horizon=3, context=9)
    again = pickle.loads(pickle.dumps(task))
    for one, two in zip(task.splits(), again.splits(), strict=True):
        assert torch.equal(one.rows, two.rows) and len(one) == len(two)
    one = pickle.loads(pickle.dumps(task.splits().test))  # as a loader's workers get it
    assert torch.equal(one[4][0], task.splits().test[4][0])


def test_workers_change_nothing(made):
    part = Made(made[0], series="ecl", horizon=3, context=9).splits().test
    options = {"batch_size": 16, "collate_fn": Forecasting.collate.__get__(Forecasting)}
    zero, two = (list(DataLoader(part, num_workers=n, **options)) for n in (0, 2))
    assert all(torch.equal(a.u, b.u) for a, b in zip(zero, two, strict=True))


def test_the_trainers_objective_takes_the_horizon(made):
    pytest.importorskip("lightning")
    from s4lite.train.objectives import objective

    task = Made(made[0], horizon=4, context=9, univariate=False)
    batch = task.splits().test.__getitems__(range(5))
    output = torch.cat([torch.full((5, 9, 7), 99.0), batch.y + 2], 1)
    scores = objective(task.metric).read(objective(task.metric).sums(output, batch.y))
    assert_close(torch.tensor([scores["mse"], scores["mae"]]), torch.tensor([4.0, 2.0]))


@pytest.mark.parametrize("univariate", [True, False])
def test_taking_the_level_off_changes_no_error(made, univariate):
    options = {"series": "ecl", "horizon": 4, "context": 9, "univariate": univariate}
    (u, y), (v, w) = (Made(made[0], level=x, **options).splits().test[7] for x in (True, False))
    d = y.shape[1]
    last = v[8, :d]
    assert_close(u[:9, :d], v[:9, :d] - last)
    assert_close(y, w - last)
    assert not u[8:, :d].any() and torch.equal(u[:, d:], v[:, d:])
    forecast = torch.randn(4, d, generator=torch.Generator().manual_seed(0))
    assert_close(forecast - y, (forecast + last) - w)


def test_multiple_cuts_validation_and_test_alone(made):
    parts = Made(made[0], horizon=24, multiple=50).splits()
    assert [len(part) for part in parts] == [8640 - 384 - 24 + 1, 2850, 2850]


def test_the_context_of_informers_scripts():
    shown = {name: published(name).contexts for name in SERIES}
    assert shown == {
        "etth1": (720, 720, 720, 720, 720),
        "etth2": (48, 96, 336, 336, 336),
        "ettm1": (96, 96, 384, 384, 384),
        "ettm2": (),
        "weather": (720, 720, 168, 336, 720),
        "ecl": (),
    }
    task = Forecasting(series="weather", horizon=168, context=None, download=False)
    assert (task.context, task.length) == (168, 336)
    assert [published("etth2").context(h) for h in published("etth2").horizons] == [*shown["etth2"]]


def test_a_clock_of_lines_that_stops_at_the_horizon(made):
    likes = {"horizon": 4, "context": 9, "level": False}
    (u, y), (v, w) = (
        Made(made[0], inputs=i, **likes).splits().val[30] for i in ("s4-lines", "informer")
    )
    assert torch.equal(y, w) and torch.equal(u[:9], v[:9]) and u.shape == v.shape == (13, 5)
    assert not u[9:].any() and v[9:, 1:].any() and u[:9, 1:].abs().max() <= 0.5


def test_whole_scale_differs_by_one_factor(made):
    ours, theirs = (
        Made(made[0], horizon=4, context=9, level=False, scale=s) for s in ("train", "whole")
    )
    (_, y), (_, other) = (task.splits().test[8] for task in (ours, theirs))
    assert not torch.allclose(y, other)
    degrees = [
        v.double().numpy() * task.std + task.mean for v, task in ((y, ours), (other, theirs))
    ]
    assert np.abs(degrees[0] - degrees[1]).max() < 1e-5


def test_options_are_checked(tmp_path):
    for options, message in (
        ({"series": "ETTh1"}, "want one of " + ", ".join(SERIES)),
        ({"inputs": "all"}, "want one of full, seasons, informer, s4, s4-lines, values, got 'all'"),
        ({"scale": "max"}, "want one of train, whole"),
        ({"horizon": 0}, "want horizon >= 1"),
        ({"context": -1}, "want context >= 1"),
        ({"context": None, "horizon": 25}, r"want a context, as none .* ETTh1.csv at horizon 25"),
        ({"context": None, "series": "ecl", "horizon": 48}, r"want a context.* at horizon 48"),
        ({"multiple": 0}, "want multiple >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Forecasting(tmp_path, **options)
    with pytest.raises(TypeError, match="want horizon as an int"):
        Forecasting(tmp_path, horizon=24.0)
    assert not list(tmp_path.iterdir())


def test_windows_longer_than_a_part_are_refused(made):
    with pytest.raises(ValueError, match=r"want at least 1 windows of 9 \+ 2881 samples"):
        Made(made[0], horizon=2881, context=9).splits()


def test_missing_and_damaged(tmp_path, made):
    task = Forecasting(tmp_path, download=False)
    with pytest.raises(MissingData, match=r"ETT-small/ETTh1\.csv"):
        task.prepare()
    (tmp_path / "ETT-small").mkdir()
    whole = (made[0] / "ETT-small/ETTh1.csv").read_bytes()
    (tmp_path / "ETTh1.csv").write_bytes(whole[:-1])
    with pytest.raises(DamagedData, match="f18de3ad"):
        task.splits()
    (tmp_path / "ETTh1.csv").unlink()
    (tmp_path / "ETT-small/ETTh1.csv").write_bytes(b"\n".join(whole.splitlines()[:9000]))
    with pytest.raises(DamagedData, match="want n >= 14400, got 8999"):
        Made(tmp_path).splits()
