"""Tables of numbers by time: reading them, and telling the time of every row.

Home: chapter 20, "Forecasting" (chapters/20_forecasting.ipynb).
"""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["CLOCKS", "Table", "clock", "read_table"]


_DAY = 1440  # minutes
_WEEK = 7 * _DAY
_YEAR = 365.25 * _DAY

CLOCKS = {"circles": 4, "seasons": 6, "lines": 4, "symbols": 76}


class Table(NamedTuple):
    """Numbers at even times.

    times    (n,)    datetime64[m]
    values   (n, d)  float64
    columns  tuple of d str
    """

    times: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]


def _parts(times: np.ndarray) -> tuple[np.ndarray, ...]:
    """Minutes into the day, weekday (Monday 0), day of the year (0 to 365), month, and day."""
    form = getattr(times, "ndim", 0), getattr(getattr(times, "dtype", None), "kind", "")
    if form != (1, "M") or np.isnat(times).any():
        raise ValueError(f"want times (n,) as datetime64, all of them known, got {times!r:.60}")
    days, months = times.astype("M8[D]"), times.astype("M8[M]")
    minute = (times - days).astype("m8[m]").astype(np.int64)
    weekday = (days.astype(np.int64) + 3) % 7
    yearday = (days - times.astype("M8[Y]")).astype(np.int64)
    return (
        minute,
        weekday,
        yearday,
        months.astype(np.int64) % 12 + 1,
        (days - months).astype(np.int64) + 1,
    )


def clock(times: np.ndarray, kind: str = "circles", quarters: bool = False) -> np.ndarray:
    """Tell the time in numbers.

    Args:
        times     (n,)  datetime64
        kind      str   "circles": sine and cosine of the time in the day and the week;
                        "seasons": in the year too;
                        "lines": hour, weekday, day of the month and of the year, -1/2 to 1/2;
                        "symbols": unit vectors of month (13), day (32), weekday (7) and hour (24)
        quarters  bool  tell minutes too: one line before the others, four symbols behind them
    Returns:
        features  (n, f)  float32, f = `CLOCKS[kind]`, more with quarters; circles always tell them
    Raises:
        ValueError: if kind is unknown, or a time.

    Source: Informer's code, the S4 code; our eq-forecasting-circle, eq-forecasting-symbols.
    """
    if kind not in CLOCKS:
        raise ValueError(f"want one of {', '.join(CLOCKS)}, got {kind!r}")
    minute, weekday, yearday, month, day = _parts(times)
    if kind in ("circles", "seasons"):
        into = [minute / _DAY, (weekday * _DAY + minute) / _WEEK]
        into += [(yearday * _DAY + minute) / _YEAR] * (kind == "seasons")
        columns = [f(2 * np.pi * share) for share in into for f in (np.sin, np.cos)]
    elif kind == "lines":
        columns = [minute % 60 / 59] * quarters + [minute // 60 / 23, weekday / 6]
        columns = [x - 0.5 for x in (*columns, (day - 1) / 30, yearday / 365)]
    else:
        symbols = [(month, 13), (day, 32), (weekday, 7), (minute // 60, 24)]
        symbols += [(minute % 60 // 15, 4)] * quarters
        return np.concatenate([np.eye(n, dtype=np.float32)[i] for i, n in symbols], 1)
    return np.stack(columns, 1).astype(np.float32)


def _moments(words: Sequence[str]) -> np.ndarray:
    """Read 2016-07-01 00:15:00, or 7/1/2016 0:15, month first: (n,) datetime64[m]."""
    if words and "/" in words[0]:
        read = [datetime.strptime(word, "%m/%d/%Y %H:%M") for word in words]
        return np.array(read, dtype="M8[m]")
    return np.array(words, dtype="M8[m]")


def _lines(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """The header's names, each of its own, and the rows, each with a field for every name."""
    lines = Path(path).read_text("utf-8-sig", errors="replace").rstrip().splitlines()
    header = lines[0].split(",") if lines else []
    if header[:1] != ["date"] or len(lines) < 3 or len(set(header)) < len(header):
        got = f"{lines[0]!r:.200} and {len(lines) - 1} rows" if lines else "nothing"
        raise ValueError(f'want a header "date,...", no name twice, and rows in {path}, got {got}')
    for number, line in enumerate(lines[1:], 2):
        if (fields := line.count(",") + 1) != len(header) and line:
            got = f"{fields} in line {number}: {line!r:.60}"
            raise ValueError(f"want times and numbers in {path}, {len(header)} a line, got {got}")
    return header, lines[1:]


def read_table(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Table:
    """Read a file of numbers by time: a header that begins with "date", then evenly spaced rows.

    Args:
        path     path                    comma-separated, of two rows or more
        columns  sequence of str | None  which to read, in this order; None: all but the date
    Returns:
        Table
    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no such table, or a column, a number or a row is missing.
    """
    header, lines = _lines(path)
    columns = tuple(header[1:] if columns is None else columns)
    unknown = [name for name in columns if name not in header[1:]]
    if unknown or not columns:
        among = ", ".join(header[1:])
        raise ValueError(f"want columns among {among:.300} in {path}, got {unknown}")
    try:
        times = _moments([line.partition(",")[0] for line in lines])
        places = [header.index(name) for name in columns]
        values = np.loadtxt(lines, delimiter=",", usecols=places, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"want times and numbers in {path}: {error}") from None
    uneven = np.flatnonzero(np.diff(times) != times[1] - times[0])
    if len(uneven) or times[1] <= times[0] or len(values) != len(times):
        at = int(uneven[0]) if len(uneven) else 0
        raise ValueError(f"want even steps in {path}, got {times[at]} then {times[at + 1]}")
    if len(bad := np.argwhere(~np.isfinite(values))):
        raise ValueError(f"want finite numbers in {path}, got others at {times[bad[0][0]]}")
    return Table(times, values, columns)
