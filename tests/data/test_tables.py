"""Tables by time: what is read, what is refused, and how the time is told."""

import calendar
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.data.tables import CLOCKS, clock, read_table

START = datetime(2016, 2, 28, 22)


def write(path, count=60, minutes=60, form="%Y-%m-%d %H:%M:%S", change=lambda lines: lines):
    """A table of two columns, `change`d before it is written."""
    times = [START + timedelta(minutes=minutes * k) for k in range(count)]
    rows = [f"{t.strftime(form)},{k / 4},{-k}" for k, t in enumerate(times)]
    path.write_text("\n".join(change(["date,HUFL,OT", *rows])) + "\n")
    return times


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%m/%d/%Y %H:%M"])
@pytest.mark.parametrize("minutes", [15, 60])
def test_reads_what_was_written(tmp_path, form, minutes):
    times = write(tmp_path / "a.csv", minutes=minutes, form=form)
    table = read_table(tmp_path / "a.csv")
    assert table.columns == ("HUFL", "OT") and table.values.dtype == np.float64
    assert table.times.tolist() == times and table.times.dtype == "M8[m]"
    assert np.array_equal(table.values, np.stack([np.arange(60) / 4, -np.arange(60)], 1))


def test_dates_without_leading_zeros(tmp_path):
    """As in WTH.csv: 1/1/2010 0:00."""
    rows = [f"1/{1 + k // 24}/2010 {k % 24}:00,{k}" for k in range(50)]
    (tmp_path / "a.csv").write_text("\n".join(["date,x", *rows]))
    table = read_table(tmp_path / "a.csv")
    assert table.times[[0, 49]].tolist() == [datetime(2010, 1, 1), datetime(2010, 1, 3, 1)]


def test_columns_come_in_the_order_asked_for(tmp_path):
    write(tmp_path / "a.csv")
    table = read_table(tmp_path / "a.csv", ["OT", "HUFL"])
    assert table.columns == ("OT", "HUFL") and table.values[4].tolist() == [-4, 1]
    assert read_table(tmp_path / "a.csv", ["OT"]).values.shape == (60, 1)


@pytest.mark.parametrize("end", ["\n", "\n\n \n", ""])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_and_line_ends_do_not_matter(tmp_path, end, line, mark):
    write(tmp_path / "a.csv")
    text = mark + (tmp_path / "a.csv").read_text().rstrip() + end
    (tmp_path / "b.csv").write_bytes(text.replace("\n", line).encode())
    for got, want in zip(*map(read_table, (tmp_path / "a.csv", tmp_path / "b.csv")), strict=True):
        assert np.array_equal(got, want)


def one(row, new):
    """A change of one line."""
    return lambda lines: [*lines[:row], *new, *lines[row + 1 :]]


BAD = {
    "a row is missing": (one(9, []), "want even steps"),
    "a row comes twice": (lambda x: [*x[:9], *x[8:]], "want even steps"),
    "it runs backwards": (lambda x: [x[0], *x[:0:-1]], "want even steps"),
    "time stands still": (lambda x: [x[0], x[1], x[1]], "want even steps"),
    "an empty number": (one(5, ["2016-02-29 02:00:00,,1"]), "want times and numbers"),
    "a word": (one(5, ["2016-02-29 02:00:00,1,much"]), "want times and numbers"),
    "a field too many": (one(5, ["2016-02-29 02:00:00,1,2,3"]), "3 a line, got 4 in line 6"),
    "a field slipped in": (one(5, ["2016-02-29 02:00:00,,1,2"]), "3 a line, got 4 in line 6"),
    "a name twice": (one(0, ["date,OT,OT"]), "no name twice"),
    "no column": (lambda x: [line.partition(",")[0] for line in x], "want columns among"),
    "a column too few": (one(5, ["2016-02-29 02:00:00,1"]), "want times and numbers"),
    "no number": (one(5, ["2016-02-29 02:00:00,1,nan"]), "want finite numbers"),
    "infinity": (one(5, ["2016-02-29 02:00:00,1,inf"]), "want finite numbers"),
    "no time": (one(5, ["some day,1,2"]), "want times and numbers"),
    "an empty line": (one(5, [""]), "want even steps|want times and numbers"),
    "cut in a line": (lambda x: [*x[:-1], x[-1][:8]], "want times and numbers|want even steps"),
    "no header": (lambda x: x[1:], 'want a header "date'),
    "one row": (lambda x: x[:2], "want a header .* and rows"),
    "nothing": (lambda x: [], "want a header"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_such_table_is_refused(tmp_path, what):
    change, message = BAD[what]
    write(tmp_path / "a.csv", change=change)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value)


def test_unknown_columns_are_named(tmp_path):
    write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"want columns among HUFL, OT .* got \['MT_320'\]"):
        read_table(tmp_path / "a.csv", ["OT", "MT_320"])
    with pytest.raises(ValueError, match="got \\['date'\\]"):
        read_table(tmp_path / "a.csv", ["date"])
    with pytest.raises(ValueError, match=r"want columns among HUFL, OT .* got \[\]"):
        read_table(tmp_path / "a.csv", [])


def test_a_number_never_stands_in_its_neighbours_column(tmp_path):
    """An empty field before it would move it by one; only one column is read, and it is there."""
    write(tmp_path / "a.csv", change=one(5, ["2016-02-29 02:00:00,,1,2"]))
    with pytest.raises(ValueError, match="got 4 in line 6: '2016-02-29 02:00:00,,1,2'"):
        read_table(tmp_path / "a.csv", ["OT"])


# ------------------------------------------------------------------ the clock

moments = st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1))


@settings(max_examples=200, deadline=None)
@given(moments)
def test_symbols_are_the_calendar(moment):
    got = clock(np.array([moment], "M8[m]"), "symbols", quarters=True)[0]
    assert got.shape == (80,) and got.dtype == np.float32 and set(got.tolist()) == {0, 1}
    weekday = calendar.weekday(moment.year, moment.month, moment.day)
    places = [moment.month, 13 + moment.day, 45 + weekday, 52 + moment.hour]
    assert np.flatnonzero(got).tolist() == [*places, 76 + moment.minute // 15]
    assert np.array_equal(clock(np.array([moment], "M8[s]"), "symbols")[0], got[:76])


@settings(max_examples=200, deadline=None)
@given(moments)
def test_lines_are_informers(moment):
    got = clock(np.array([moment], "M8[m]"), "lines", quarters=True)[0]
    day = (moment.date() - moment.date().replace(month=1, day=1)).days
    shares = [moment.minute / 59, moment.hour / 23, moment.weekday() / 6]
    want = np.array([*shares, (moment.day - 1) / 30, day / 365]) - 0.5
    assert np.abs(got - want).max() < 1e-6 and np.abs(got).max() <= 0.5
    assert np.array_equal(clock(np.array([moment], "M8[m]"), "lines")[0], got[1:])


@settings(max_examples=100, deadline=None)
@given(moments)
def test_circles_are_on_circles_and_come_round(moment):
    start = np.array(moment, "M8[m]")
    day, week = (np.array([start, start + np.timedelta64(n, "D")]) for n in (1, 7))
    at, then = clock(day, "seasons")
    assert np.array_equal(clock(day), clock(day, "seasons")[:, :4])
    assert np.allclose(np.square(at).reshape(3, 2).sum(1), 1, atol=1e-6)
    assert np.allclose(at[:2], then[:2], atol=1e-6) and not np.allclose(at[2:4], then[2:4])
    assert np.allclose(*clock(week)[:, 2:4], atol=1e-6)
    year = clock(np.array([start, start + np.timedelta64(365, "D")]), "seasons")[:, 4:]
    assert np.linalg.norm(year[0] - year[1]) < 0.04  # a day or two of 365.25


def test_midnight_is_near_on_circles_only():
    hours = np.arange("2017-01-01", "2017-01-03", dtype="M8[h]")
    steps = np.linalg.norm(np.diff(clock(hours)[:, :2], axis=0), axis=1)
    assert np.ptp(steps) < 1e-5 and abs(steps[0] - 2 * np.sin(np.pi / 24)) < 1e-6
    assert abs(np.diff(clock(hours, "lines")[:, 0])).max() == 1


def test_sizes_are_as_said():
    hours = np.arange("2017-01-01", "2017-01-03", dtype="M8[h]")
    assert {kind: clock(hours, kind).shape[1] for kind in CLOCKS} == CLOCKS
    sizes = {"circles": 4, "seasons": 6, "lines": 5, "symbols": 80}
    assert {kind: clock(hours, kind, quarters=True).shape[1] for kind in CLOCKS} == sizes
    with pytest.raises(
        ValueError, match="want one of circles, seasons, lines, symbols, got 'sundial'"
    ):
        clock(hours, "sundial")


@pytest.mark.parametrize("kind", CLOCKS)
def test_only_times_are_told(kind):
    unknown = np.array(["2017-01-01", "NaT"], "M8[m]")
    for bad in (["2017-01-01"], np.arange(3), unknown, np.zeros((2, 2), "M8[m]")):
        with pytest.raises(
            ValueError, match=r"want times .* as datetime64, all of them known, got"
        ):
            clock(bad, kind)
    assert clock(np.zeros(0, "M8[m]"), kind).shape == (0, CLOCKS[kind])
