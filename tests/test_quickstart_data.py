"""The digits of Quickstart: what their README promises, and nothing that pip users pay for."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "chapters" / "data" / "mnist14.npz"
MAKER = ROOT / "chapters" / "_tools" / "make_digits.py"


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    with np.load(DIGITS, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_digits", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shapes_and_types(digits):
    found = {name: (array.shape, array.dtype) for name, array in digits.items()}
    byte = np.dtype(np.uint8)
    assert found == {
        "train_images": ((10_000, 14, 14), byte),
        "train_labels": ((10_000,), byte),
        "test_images": ((2_000, 14, 14), byte),
        "test_labels": ((2_000,), byte),
    }


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_digit_is_there_and_drawn(digits, part):
    images, labels = digits[f"{part}_images"], digits[f"{part}_labels"]
    counts = np.bincount(labels, minlength=10) / len(labels)
    assert counts.shape == (10,) and counts.min() > 0.07 and counts.max() < 0.13
    ink = images.reshape(len(images), -1) / 255
    assert ink.max(1).min() > 0.4  # no blank image
    assert 0.05 < ink.mean() < 0.25


def test_no_held_out_digit_was_trained_on(digits):
    trained = {image.tobytes() for image in digits["train_images"]}
    assert not [k for k, image in enumerate(digits["test_images"]) if image.tobytes() in trained]


def test_small_and_outside_the_package():
    assert DIGITS.stat().st_size <= 2_000_000
    heavy = {".npz", ".npy", ".wav", ".png", ".gz", ".csv"}
    assert not [p for p in (ROOT / "s4lite").rglob("*") if p.suffix in heavy]


def test_readme_tells_the_checksum():
    notes = (DIGITS.parent / "README.md").read_text(encoding="utf-8")
    section = notes.split("## mnist14.npz")[1].split("\n## ")[0]
    assert re.findall(r"[0-9a-f]{64}", section) == [hashlib.sha256(DIGITS.read_bytes()).hexdigest()]
    assert "CC BY-SA 3.0" in section


def test_pooling_is_the_mean_of_four(maker):
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, :2], image[0, 1, :2] = (10, 20), (30, 41)  # mean 25.25
    image[0, 2:4, 26:] = 255
    image[0, 4, 0], image[0, 6, 0] = 2, 6  # means 0.5 and 1.5: halves go to the even number
    small = maker.pool(image)
    assert small.shape == (1, 14, 14) and small.dtype == np.uint8
    assert (small[0, 0, 0], small[0, 1, 13], small[0, 2, 0], small[0, 3, 0]) == (25, 255, 0, 2)
    assert small.sum() == 25 + 255 + 0 + 2


def test_maker_refuses_other_files(tmp_path, maker):
    for file in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        (tmp_path / file).write_bytes(b"not MNIST")
    out = tmp_path / "out.npz"
    command = [sys.executable, str(MAKER), str(tmp_path), "-o", str(out)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1 and not out.exists()
    file, md5, *_ = maker.SOURCES["train_images"]
    assert f"want {file} with MD5 {md5}, got " in answer.stderr
