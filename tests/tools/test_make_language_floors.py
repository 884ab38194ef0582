"""The maker of the floors of texts, and what it made."""

import json
import os
from pathlib import Path

import make_language_floors as maker
import numpy as np
import pytest

from s4lite.recipes.catalogue import recipe

KEPT = json.loads((maker.HERE / maker.FILE).read_text())
FOLDER = os.environ.get("S4LITE_DATA_DIR", "")


def test_a_wrong_folder_changes_nothing(tmp_path, capsys):
    (tmp_path / maker.FILE).write_text("as it was")
    assert maker.main([str(tmp_path / "nowhere"), "-o", str(tmp_path)]) == 3
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]
    assert "nothing was written" in capsys.readouterr().err


def test_all_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "of", lambda folder, name: {"bits": {"xz": 1.0}})
    assert maker.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    made = json.loads((tmp_path / "out" / maker.FILE).read_text())
    assert list(made["texts"]) == list(maker.ORDERS) and str(tmp_path) not in json.dumps(made)


@pytest.mark.parametrize("name", list(maker.ORDERS))
def test_what_is_kept_fits_the_recipe(name):
    text, most = KEPT["texts"][name], recipe(name).sizes["tiny"].task["part"]
    assert text["train"] <= most[0] and text["test"] <= most[2]
    bits = [text["bits"][f"order {k}"] for k in range(maker.ORDERS[name] + 1)]
    assert np.all(np.array(bits) < np.log2(text["kinds"])) and min(bits) < bits[0]
    assert len(text["counts"]) == len(bits) and np.all(np.diff(text["counts"]) > 0)
    assert text["counts"][0] <= text["kinds"]


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="S4LITE_DATA_DIR names no folder with the files")
def test_it_is_what_the_files_give(tmp_path):
    for path in Path(FOLDER).iterdir():
        if path.name != "text":
            (tmp_path / path.name).symlink_to(path)
    made, kept = maker.of(tmp_path, "tiny-shakespeare"), KEPT["texts"]["tiny-shakespeare"]
    assert all(made[key] == kept[key] for key in ("kinds", "train", "test", "bytes", "counts"))
    for name, bits in kept["bits"].items():
        near = 0.02 if name in ("gzip", "bz2", "xz") else 1e-4  # libraries differ
        assert abs(made["bits"][name] - bits) <= near
