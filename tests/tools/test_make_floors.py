"""The maker of the floors writes them whole, or leaves what is there."""

import json

import make_floors
import pytest

from s4lite.data.files import DamagedData, MissingData


def pretend(monkeypatch, without=(), damaged=()):
    """Series that take no time to score."""

    def of(folder, name):
        if name in without:
            raise MissingData(f"want {name}, which is not there\n  folder {folder}")
        if name in damaged:
            raise DamagedData(f"want the series {name}")
        return {"horizons": {"24": {}}}

    monkeypatch.setattr(make_floors, "of", of)


def test_ecl_alone_may_be_missing(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, without=("ecl",))
    assert make_floors.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    kept = json.loads((tmp_path / "out" / make_floors.FILE).read_text())
    assert list(kept["series"]) == ["etth1", "etth2", "ettm1", "weather"]
    assert kept["context"] == 384 and str(tmp_path) not in json.dumps(kept)
    said = capsys.readouterr().err
    assert "want ecl, which is not there" in said and "weather: 1 horizons" in said


@pytest.mark.parametrize("bad", [{"without": ("weather", "ecl")}, {"damaged": ("ecl",)}])
def test_else_nothing_is_written(tmp_path, monkeypatch, capsys, bad):
    (tmp_path / make_floors.FILE).write_text("as it was")
    pretend(monkeypatch, **bad)
    assert make_floors.main([str(tmp_path), "-o", str(tmp_path)]) == 3
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]
    assert "nothing was written" in capsys.readouterr().err


def test_a_wrong_folder_changes_nothing(tmp_path, capsys):
    """Without pretence: no file is there."""
    (tmp_path / make_floors.FILE).write_text("as it was")
    assert make_floors.main([str(tmp_path / "nowhere"), "-o", str(tmp_path)]) == 3
    assert (tmp_path / make_floors.FILE).read_text() == "as it was"
    assert "ETTh1.csv, which is not there" in capsys.readouterr().err
