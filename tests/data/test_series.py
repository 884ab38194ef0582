"""Published series: borders, where the files are looked for, and what is refused."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4lite.data.files import DamagedData, MissingData
from s4lite.data.series import SERIES, SeriesFile, borders, published

ETT = "HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"


@given(st.integers(20, 100_000))
def test_borders_by_shares_are_the_published_expression(n):
    num_train, num_test = int(n * 0.7), int(n * 0.2)
    num_vali = n - num_train - num_test
    train, val, test = borders(n)
    assert (train, val) == (range(num_train), range(num_train, num_train + num_vali))
    assert test == range(n - num_test, n)


@pytest.mark.parametrize("month, n", [(720, 17_420), (2880, 69_680), (1, 20)])
def test_borders_by_months(month, n):
    train, val, test = borders(n, month)
    assert [len(part) / month for part in (train, val, test)] == [12, 4, 4]
    assert (train.start, train.stop, val.stop) == (0, val.start, test.start)


def test_borders_of_the_published_lengths():
    assert list(map(len, borders(35_064))) == [24_544, 3_508, 7_012]
    assert list(map(len, borders(26_304))) == [18_412, 2_632, 5_260]


def test_borders_refuse():
    with pytest.raises(ValueError, match="want n >= 14400"):
        borders(14_399, 720)
    with pytest.raises(ValueError, match="want n >= 1"):
        borders(0)
    with pytest.raises(ValueError, match="want month >= 0"):
        borders(9, -1)
    for n in (9.0, True, None):
        with pytest.raises(TypeError, match="want n as an int"):
            borders(n)


def test_every_series_is_told_whole():
    for name in SERIES:
        series = published(name)
        assert series.horizons == tuple(sorted(series.horizons)) and series.day in (24, 96)
        assert (series.source is None) == (name == "ecl")
        if series.source:
            assert series.source.name.endswith(series.file) and series.source.url
            assert series.source.digest.startswith("sha256:")
    digests = {published(name).source.digest for name in SERIES if name != "ecl"}
    assert len(digests) == len(SERIES) - 1
    with pytest.raises(ValueError, match=r"want one of etth1, .*, ecl, got 'exchange'"):
        published("exchange")


# ------------------------------------------------------------------ files of the same form


def write(path, columns, n, minutes=60, change=lambda lines: lines):
    rng = np.random.default_rng(n)
    values = rng.normal(3, 2, (n, columns.count(",") + 1)).round(3)
    times = [datetime(2012, 1, 1) + timedelta(minutes=minutes * k) for k in range(n)]
    rows = [",".join([str(t), *map(str, row)]) for t, row in zip(times, values, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(change([f"date,{columns}", *rows])))
    return values


CLIENTS = ",".join(f"MT_{k:03d}" for k in range(321))


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """ECL in small: 321 clients, 300 hours."""
    folder = tmp_path_factory.mktemp("ecl")
    return folder, write(folder / "ECL.csv", CLIENTS, 300)


@pytest.mark.parametrize("place", ["ECL.csv", "ECL/ECL.csv", "ecl/ECL.csv", "informer/ecl/ECL.csv"])
def test_ecl_is_found_by_its_name(tmp_path, clients, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes((clients[0] / "ECL.csv").read_bytes())
    assert SeriesFile(tmp_path, series="ecl").path() == tmp_path / place


@pytest.mark.filterwarnings("ignore:.*ECL.csv has")
@pytest.mark.parametrize("scale", ["train", "whole"])
def test_ecl_is_read_and_scaled(clients, scale):
    folder, values = clients
    task = SeriesFile(folder, series="ecl", univariate=False, scale=scale)
    assert task.mean is None and task.sources() == ()
    task.prepare()
    table, parts = task.read()
    assert table.values.shape == (300, 321) and parts == borders(300)
    known = values[: 210 if scale == "train" else 300]
    assert np.allclose(task.mean, known.mean(0)) and np.allclose(task.std, known.std(0))
    assert np.allclose(table.values * task.std + task.mean, values)
    one = SeriesFile(folder, series="ecl", scale=scale).read()[0]
    assert one.columns == ("MT_320",) and np.allclose(one.values[:, 0], table.values[:, 320])


@pytest.mark.filterwarnings("ignore:.*ECL.csv has")
@pytest.mark.parametrize("level, later", [(7.5, 7.5), (0.1, 0.1), (0.1, 2.1)])
def test_a_column_that_never_changes_is_not_divided_by_zero(tmp_path, level, later):
    """Nor by what rounding makes of zero: the deviation of 28 times 0.1 comes out as 1e-17."""

    def still(lines):
        ends = ["", *[level] * 28, *[later] * 12]
        return [line.rpartition(",")[0] + f",{end}" if end else line
                for line, end in zip(lines, ends, strict=True)]  # fmt: skip

    write(tmp_path / "ECL.csv", CLIENTS, 40, change=still)
    task = SeriesFile(tmp_path, series="ecl")
    values = task.read()[0].values[:, 0]
    assert task.std.tolist() == [1] and np.allclose(task.mean, level)
    assert np.allclose(values, [0.0] * 28 + [later - level] * 12, atol=1e-12)


def test_ecl_of_another_length_is_doubted(clients):
    """Cut at the end of a line it is a table all the same; nobody knows its digest."""
    with pytest.warns(
        UserWarning, match=r"ECL\.csv has 300 rows, where 26,304 are usual, and no dig"
    ):
        SeriesFile(clients[0], series="ecl").read()


def test_ecl_missing_says_where_and_what(tmp_path):
    with pytest.raises(MissingData) as caught:
        SeriesFile(tmp_path, series="ecl").prepare()
    for word in ("ECL.csv", str(tmp_path), "address", "digest   none is published", "--data-dir"):
        assert word in str(caught.value)


def test_ecl_that_is_no_ecl_is_refused(tmp_path, clients):
    path = tmp_path / "ECL.csv"
    write(path, CLIENTS, 60, change=lambda lines: lines[:20] + lines[21:])
    with pytest.raises(DamagedData, match=r"want the series ECL\.csv: want even steps"):
        SeriesFile(tmp_path, series="ecl").read()
    write(path, "Open,High,Low,Close", 60)  # stocks of Ecolab go by this name too
    with pytest.raises(DamagedData, match=r"want columns among Open, .* got \['MT_320'\]"):
        SeriesFile(tmp_path, series="ecl").read()
    with pytest.raises(DamagedData, match="want 321 columns and a date, got 4 columns"):
        SeriesFile(tmp_path, series="ecl", univariate=False).read()
    whole = (clients[0] / "ECL.csv").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # a broken download
    with pytest.raises(DamagedData, match=r"want the series ECL\.csv"):
        SeriesFile(tmp_path, series="ecl").read()
    assert path.read_bytes() == whole[: len(whole) // 2]  # left alone


@pytest.mark.parametrize("series", ["etth1", "ettm2", "weather"])
def test_files_with_a_digest(tmp_path, series):
    task = SeriesFile(tmp_path, series=series, download=False)
    with pytest.raises(MissingData) as caught:
        task.prepare()
    source = published(series).source
    for word in (source.name, source.url, source.digest, str(tmp_path)):
        assert word in str(caught.value)
    for place in (source.name, *source.also):
        path = tmp_path / place
        write(path, ETT, 30)
        before = path.read_bytes()
        with pytest.raises(DamagedData, match=source.digest):
            task.prepare()
        assert path.read_bytes() == before
        path.unlink()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="want one of etth1"):
        SeriesFile(tmp_path, series="ETTh1")
    with pytest.raises(ValueError, match="want one of train, whole, got 'test'"):
        SeriesFile(tmp_path, scale="test")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        SeriesFile(tmp_path / "file")
