"""The embedded signals: what their README promises, and how they were made."""

import csv
import datetime
import hashlib
import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "chapters" / "data"
MAKER = ROOT / "chapters" / "_tools" / "make_signals.py"
FILES = {"sunspots.csv": "public domain", "co2.csv": "public domain", "ecg_360hz.csv": "ODC-By 1.0"}


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_signals", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(("name", "licence"), FILES.items())
def test_readme_tells_size_checksum_and_licence(name, licence):
    notes = (DATA / "README.md").read_text(encoding="utf-8")
    section = notes.split(f"## {name}")[1].split("\n## ")[0]
    content = (DATA / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() in section
    assert f"{len(content):,} bytes" in section and licence in section


def test_sunspots_are_every_year():
    years = [int(r["year"]) for r in rows("sunspots.csv")]
    counts = [float(r["sunspots"]) for r in rows("sunspots.csv")]
    assert years == list(range(1700, 2009))
    assert min(counts) == 0 and max(counts) == 190.2 and counts[0] == 5


def test_co2_is_weekly_with_real_gaps():
    days = [datetime.date.fromisoformat(r["date"]) for r in rows("co2.csv")]
    steps = [(b - a).days for a, b in itertools.pairwise(days)]
    assert len(days) == 2225 and min(steps) == 7 and not [s for s in steps if s % 7]
    assert sum(s > 7 for s in steps) > 20 and max(steps) > 60
    values = [float(r["co2"]) for r in rows("co2.csv")]
    assert 310 < min(values) < 320 and 370 < max(values) < 380


def test_ecg_is_eight_seconds_of_beats():
    mv = [(int(r["adc"]) - 1024) / 200 for r in rows("ecg_360hz.csv")]
    assert len(mv) == 8 * 360
    high = [k for k in range(1, len(mv) - 1) if mv[k] > 0.8 and mv[k - 1] <= mv[k] > mv[k + 1]]
    beats = [k for i, k in enumerate(high) if i == 0 or k - high[i - 1] > 72]
    assert 10 <= len(beats) <= 18  # 75 to 135 beats a minute


def test_maker_reads_what_it_says(maker):
    assert maker.sunspots(b'"YEAR","SUNACTIVITY"\n1700,5\n1701,11.5\n') == (
        "year,sunspots\n1700,5\n1701,11.5\n"
    )
    text = maker.co2(b"date,co2\n19580329,316.1\n19580405,\n19580412,317.3\n")
    assert text == "date,co2\n1958-03-29,316.1\n1958-04-12,317.3\n"


def test_maker_refuses_other_files(tmp_path, maker):
    for _, name, _ in maker.SOURCES.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"something else")
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, str(MAKER), str(tmp_path), str(tmp_path), "-o", str(out)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1 and not list(out.iterdir())
    assert "with SHA-256" in answer.stderr
