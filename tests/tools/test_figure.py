"""Figures of the book: short, and the same to the eye."""

import base64
import io

import book
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image


def drawn(monkeypatch, paint: bool) -> tuple[bytes, bytes]:
    """What figure shows, and what matplotlib saved."""
    plt.switch_backend("agg")
    fig, ax = plt.subplots()
    x = np.linspace(0, 9, 500)
    for i in range(7):
        ax.plot(x, np.sin(x + i), lw=0.5 + i / 4)
    if paint:
        ax.imshow(np.outer(x, x))
    saved = io.BytesIO()
    fig.savefig(saved, format="png", dpi=book.DPI, metadata={"Software": None})
    shown = []
    monkeypatch.setattr(book, "display", lambda data, **_: shown.append(data))
    book.figure(fig, "a caption")
    return base64.b64decode(shown[0]["image/png"]), saved.getvalue()


def test_a_drawing_is_less_than_half_as_long_and_looks_the_same(monkeypatch) -> None:
    short, whole = drawn(monkeypatch, paint=False)
    assert len(short) < len(whole) / 2
    a, b = (
        np.asarray(Image.open(io.BytesIO(x)).convert("RGB")).astype(int) for x in (short, whole)
    )
    assert a.shape == b.shape and (a[0, 0] == 255).all()
    assert ((a == 255).all(-1) == (b == 255).all(-1)).mean() > 0.999
    assert np.abs(a - b).mean() < 0.2 and (np.abs(a - b).max(-1) > 32).mean() < 1e-3


def test_the_same_drawing_is_the_same_bytes(monkeypatch) -> None:
    assert drawn(monkeypatch, paint=False)[0] == drawn(monkeypatch, paint=False)[0]


def test_a_painted_figure_keeps_all_its_colours(monkeypatch) -> None:
    short, whole = drawn(monkeypatch, paint=True)
    assert short == whole
