"""Published series: their files, their parts in the order of time, and their scale.

Home: chapter 20, "Forecasting" (chapters/20_forecasting.ipynb).
"""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s4lite.data.draws import check_whole
from s4lite.data.files import DamagedData, MissingData, Source, fetch
from s4lite.data.tables import Table, read_table
from s4lite.data.task import Task

__all__ = ["SERIES", "Series", "SeriesFile", "SeriesTask", "borders", "published"]


def borders(n: int, month: int = 0) -> tuple[range, range, range]:
    """Which samples are to be forecast in training, validation and test, in the order of time.

    Args:
        n      int  samples of the series
        month  int  samples of 30 days: 12, 4 and 4 such months; 0: 70 %, what is left, and 20 %,
                    both rounded down as published, in floating point
    Returns:
        train, val, test  range
    Raises:
        TypeError, ValueError: if a number is no int, or the series is too short.

    Source: Zhou et al. 2021 (Informer), their code; our eq-forecasting-borders.
    """
    check_whole(0, month=month), check_whole(max(1, 20 * month), n=n)
    if month:
        a, b, c = 12 * month, 16 * month, 20 * month
    else:
        a, b, c = int(n * 0.7), n - int(n * 0.2), n
    return range(a), range(a, b), range(b, c)


@dataclass(frozen=True)
class Series:
    """A published series, and what is asked of it.

    file      str           its name
    target    str           the column that is forecast alone
    columns   int           how many there are
    horizons  tuple of int  the published ones
    day       int           samples a day
    months    bool          parted by months of 30 days; False: by shares; see `borders`
    source    Source | None  None: nobody has published a digest
    rows      int | None    how many it usually has, where only that is known
    contexts  tuple of int  how many samples Informer's scripts show at each horizon, univariate
    """

    file: str
    target: str
    columns: int
    horizons: tuple[int, ...]
    day: int = 24
    months: bool = False
    source: Source | None = None
    rows: int | None = None
    contexts: tuple[int, ...] = ()

    def context(self, horizon: int) -> int:
        """How many samples Informer's script shows at a horizon; ValueError if there is none."""
        known = dict(zip(self.horizons, self.contexts, strict=False))
        if horizon not in known:
            told = f"{self.file} at horizon {horizon}, only {known}"
            raise ValueError(f"want a context, as none was published for {told}")
        return known[horizon]


_ECL = "https://drive.google.com/drive/folders/1ohGYWWohJlOlb2gsGTeEq3Wii2egnEPR"
_ECL_PLACES = ("ECL.csv", "ECL/ECL.csv", "ecl/ECL.csv", "informer/ecl/ECL.csv")
_ETT = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07"
)
_ETT_DIGESTS = {
    "ETTh1": "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    "ETTh2": "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
    "ETTm1": "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
    "ETTm2": "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
}
_WTH = "https://raw.githubusercontent.com/arrayofstar/2022_Informer_Paddle"
_SHOWN = {  # Informer's scripts ETTh1.sh, ETTh2.sh, ETTm1.sh, below "S"
    "ETTh1": (720, 720, 720, 720, 720),
    "ETTh2": (48, 96, 336, 336, 336),
    "ETTm1": (96, 96, 384, 384, 384),
}


def _ett(name: str) -> Series:
    """One of the four, at its authors'."""
    kind, file = name[:4].lower(), f"{name}.csv"
    folders = ("ETDataset/ETT-small", "ETT", kind, f"informer/{kind}")
    also = (*(f"{folder}/{file}" for folder in folders), file)
    place, digest = f"ETT-small/{file}", f"sha256:{_ETT_DIGESTS[name]}"
    source = Source(place, f"{_ETT}/{place}", digest, "CC BY-ND 4.0", also=also)
    shown = {"contexts": _SHOWN.get(name, ())}
    if kind == "etth":
        return Series(file, "OT", 7, (24, 48, 168, 336, 720), 24, True, source, **shown)
    return Series(file, "OT", 7, (24, 48, 96, 288, 672), 96, True, source, **shown)


def _weather() -> Series:
    """Informer's weather; its authors have it on Google Drive only, this is a copy."""
    url = f"{_WTH}/e1f744055217a7834096324bdf85ec7ed3fb31c1/data/WTH.csv"
    digest = "sha256:5635e7f2d8f947f9abc6bc7077c907fb760eef111855a6805f096e9acff581bc"
    note = "Informer's file, of NOAA's data; not Autoformer's weather.csv, which is another series"
    also = ("WTH/WTH.csv", "weather/WTH.csv", "informer/weather/WTH.csv")
    source = Source("WTH.csv", url, digest, "US government work", note, also)
    ahead, shown = (24, 48, 168, 336, 720), (720, 720, 168, 336, 720)
    return Series("WTH.csv", "WetBulbCelsius", 12, ahead, source=source, contexts=shown)


SERIES = ("etth1", "etth2", "ettm1", "ettm2", "weather", "ecl")


def published(name: str) -> Series:
    """Look up a published series.

    Args:
        name  str  one of `SERIES`
    Returns:
        Series
    Raises:
        ValueError: if name is none of these.
    """
    if _choose(name, SERIES) == "weather":
        return _weather()
    if name == "ecl":
        return Series("ECL.csv", "MT_320", 321, (48, 168, 336, 720, 960), rows=26_304)
    return _ett(name[:3].upper() + name[3:])


def _choose(value: str, known: Iterable[str]) -> str:
    """The value, if it is known."""
    if value not in known:
        raise ValueError(f"want one of {', '.join(known)}, got {value!r}")
    return value


def _by_name(folder: Path) -> Path:
    """ECL, which is known by its name alone."""
    for place in _ECL_PLACES:
        if (path := folder / place).is_file():
            return path
    raise MissingData(
        f"want ECL.csv, which is not there, and nobody offers it for download\n  folder   {folder} "
        f"(or in it ECL, ecl, informer/ecl)\n  address  {_ECL} (by hand)\n  digest   none is "
        "published\nPut it there under that name, or name the folder that has it: data_dir, "
        "--data-dir, or S4LITE_DATA."
    )


class SeriesTask(Task):
    """What tasks on a published series have in common; `SeriesFile` opens it.

    Args:
        data_dir    path | None  as for `Task`
        series      str          one of `SERIES`
        univariate  bool         True: the target alone; False: all columns
        scale       str          mean and deviation of "train", the training part, or of the "whole"
        download    bool         False: never download
    Raises:
        ValueError: if an option is none of these.

    mean, std  (d,) float64 | None  of the scale, once the file has been read

    Source: Zhou et al. 2021 (Informer), their code; our eq-forecasting-shift.
    """

    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        series: str = "etth1",
        univariate: bool = True,
        scale: str = "train",
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        self.series, self.univariate = published(series), univariate
        self.scale = _choose(scale, ("train", "whole"))

    def sources(self) -> tuple[Source, ...]:
        """The file, where a digest of it is known."""
        return () if self.series.source is None else (self.series.source,)

    def prepare(self) -> None:
        """Look for the file, or get it."""
        self.path()


class SeriesFile(SeriesTask):
    """The file of a series, opened; its arguments are those of `SeriesTask`."""

    def path(self) -> Path:
        """The file, its digest checked if one is known; downloaded if need be."""
        if sources := self.sources():
            return fetch(*sources, self.data_dir, download=self.download)
        return _by_name(self.data_dir)

    def read(self) -> tuple[Table, tuple[range, range, range]]:
        """The columns that are wanted, scaled, and the samples of training, validation and test.

        Raises:
            MissingData: if the file is not there and cannot be had.
            DamagedData: if it is not what it should be.

        Without a digest, another number of rows than usual is warned of.
        """
        path, series = self.path(), self.series
        try:
            table = read_table(path, [series.target] if self.univariate else None)
            parts = borders(len(table.times), 30 * series.day * series.months)
        except ValueError as error:
            raise DamagedData(f"want the series {series.file}: {error}") from error
        if table.values.shape[1] != (1 if self.univariate else series.columns):
            got = f"{table.values.shape[1]} columns in {path}"
            raise DamagedData(f"want {series.columns} columns and a date, got {got}")
        if series.rows and len(table.times) != series.rows:
            usual = f"{len(table.times):,} rows, where {series.rows:,} are usual"
            warnings.warn(
                f"{path} has {usual}, and no digest to tell whether it is whole", stacklevel=2
            )
        known = table.values[: len(parts[0]) if self.scale == "train" else None]
        varies = known.max(0) > known.min(0)  # a deviation of rounding is none
        self.mean, self.std = known.mean(0), np.where(varies, known.std(0), 1.0)
        return table._replace(values=(table.values - self.mean) / self.std), parts
