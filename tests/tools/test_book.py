"""Figures and sliders: the same input gives the same bytes, and nothing that needs a network."""

import base64
import io
import re
import struct
import xml.etree.ElementTree as ET

import book
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

T = np.linspace(0.0, 10.0, 300)
VALUES = [0.1, 0.2, 0.4]


def waves(values=VALUES, **options):
    frames = [[np.exp(-0.1 * T) * np.cos(T), (T[::10], np.exp(-d * T[::10]))] for d in values]
    options = {"x": T, "names": ["exact", "<Euler> & co"], "styles": ["-", "o"]} | options
    return book.Slider(values, frames, **options)


def parsed(slider) -> ET.Element:
    return ET.fromstring(slider._repr_html_())


def moving(root) -> list[ET.Element]:
    return [e for e in root.iter() if "data-d" in e.attrib]


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(book, "display", lambda data, **options: outputs.append((data, options)))
    return outputs


def test_slider_is_well_formed_small_and_asks_for_nothing():
    html = waves(readout=["a < b", "c & d", 'e "f"'], title="T & T", caption="$x$")._repr_html_()
    ET.fromstring(html)
    assert len(html) < 20_000
    assert re.findall(r"https?://[^\"']*", html) == [
        "http://www.w3.org/2000/svg"
    ]  # a name, no address
    assert not re.search(r"\bid=|<script|<link|<img|url\(|@import", html)


def test_slider_is_deterministic():
    assert waves()._repr_html_() == waves()._repr_html_()
    assert waves()._repr_html_() != waves([0.1, 0.2, 0.5])._repr_html_()


def test_slider_forgives_the_last_bits_of_another_processor():
    rng = np.random.default_rng(0)
    frames = [[np.cos(d * T)] for d in VALUES]
    other = [[y * (1 + 4e-16 * rng.standard_normal(y.size)) for y in frame] for frame in frames]
    assert any((a[0] != b[0]).any() for a, b in zip(frames, other, strict=True))
    assert (
        book.Slider(VALUES, frames, T)._repr_html_() == book.Slider(VALUES, other, T)._repr_html_()
    )


def test_slider_holds_one_path_a_frame_and_starts_where_told():
    for start, at in [(None, 1), (0, 0), (-1, 2)]:
        root = parsed(waves(start=start))
        for path in moving(root):
            frames = path.get("data-d").split("|")
            assert len(frames) == len(VALUES) and path.get("d") == frames[at]
        knob = next(root.iter("input"))
        assert (knob.get("value"), knob.get("max")) == (str(at), "2")
        texts = [e for e in root.iter() if "data-t" in e.attrib]
        assert texts[0].text == f"Δ = {VALUES[at]:g}" == texts[0].get("data-t").split("¦")[at]


def test_slider_draws_the_curve_within_half_a_pixel():
    slider = book.Slider([0], [[np.sin(T)]], T, xlim=(0, 10), ylim=(-1, 1))
    panel = slider.panels[0]
    numbers = [int(n) for n in re.findall(r"-?\d+", panel.moving[0][0])]
    corners = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0)  # M is absolute, l relative
    y = np.interp(2 * panel.width * T / 10, corners[:, 0], corners[:, 1])
    assert abs(y - panel.height * (1 - np.sin(T))).max() < 1.5  # units are half pixels
    assert 10 < len(corners) < len(T) / 2


def test_slider_log_axes_gaps_and_limits():
    y = np.exp(-T)
    y[100:120] = np.nan
    slider = book.Slider([0], [[y]], T, yscale="log", ylim=(1e-3, 1))
    assert slider.panels[0].moving[0][0].count("M") == 2  # a gap where there is no number
    assert "10<tspan" in slider._repr_html_()
    below = book.Slider([0], [[np.array([1.0, 0.0, -1.0, 1.0])]], np.arange(4.0), yscale="log")
    assert below.panels[0].moving[0][0].count("M") == 2  # nor where there is no logarithm
    ET.fromstring(below._repr_html_())


def test_slider_panels_share_the_knob():
    circle = (np.cos(T), np.sin(T))
    frames = [[[(np.array([d]), np.array([0.0]))], [np.exp(-d * T), T]] for d in VALUES]
    panels = [
        {"styles": ["x"], "equal": True, "fixed": [circle]},
        {"x": T, "styles": ["stem", "step"]},
    ]
    root = parsed(book.Slider(VALUES, frames, panels=panels))
    assert len(moving(root)) == 3 and len(list(root.iter("input"))) == 1
    assert len([e for e in root.iter() if "viewBox" in e.attrib and e.get("role") == "img"]) == 2


def test_slider_with_two_knobs_lays_its_frames_in_rows():
    frames = [[[np.cos(d * n * T)] for n in (1, 2)] for d in VALUES]
    notes = [[f"{d} and {n}" for n in (1, 2)] for d in VALUES]
    second = {"values": [1, 2], "label": "N <odd>"}
    slider = book.Slider(VALUES, frames, T, second=second, readout=notes, start=(-1, 0))
    root = parsed(slider)
    knobs = list(root.iter("input"))
    assert [(k.get("value"), k.get("max"), k.get("data-s")) for k in knobs] == [
        ("2", "2", "2"),
        ("0", "1", "1"),
    ]
    assert [k.get("aria-label") for k in knobs] == ["Δ", "N <odd>"]
    assert {k.get("aria-valuetext") for k in knobs} == {f"Δ = {VALUES[-1]:g}, N <odd> = 1"}
    path = moving(root)[0]
    drawn = path.get("data-d").split("|")
    assert len(drawn) == 6 and path.get("d") == drawn[4]
    alone = book.Slider([0], [frames[2][0]], T, ylim=(-1, 1)).panels[0].moving[0][0]
    again = book.Slider(VALUES, frames, T, second=second, ylim=(-1, 1)).panels[0].moving[0]
    assert again[4] == alone and again[5] != alone
    texts = [e.get("data-t").split("¦") for e in root.iter() if "data-t" in e.attrib]
    assert texts[0][3] == f"Δ = {VALUES[1]:g}, N <odd> = 2" and texts[1][3] == f"{VALUES[1]} and 2"


@pytest.mark.parametrize(
    "change",
    [{"frames": [[[T]]] * 3}, {"readout": [["a"]] * 3}, {"start": 1}, {"start": (0, 2)}],
)
def test_slider_with_two_knobs_says_what_is_wrong(change):
    arguments = {"values": VALUES, "frames": [[[T], [T]]] * 3, "x": T} | change
    with pytest.raises((ValueError, IndexError)):
        book.Slider(**arguments, second={"values": [1, 2]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": []}, "one frame a value"),
        ({"frames": [[T], [T]]}, "one frame a value"),
        ({"frames": [[T], [T], [T, T]]}, "as many curves"),
        ({"frames": [[T[1:]]] * 3}, "as many x as y"),
        ({"names": ["a", "b"]}, "1 names"),
        ({"styles": ["~"]}, "styles among"),
        ({"yscale": "cubic"}, "linear or log"),
        ({"readout": ["a"]}, "one readout a value"),
        ({"readout": ["a¦b"] * 3}, "broken bar"),
        ({"ylim": (1, 1)}, "low < high"),
        ({"panels": [{"colour": "red"}], "frames": [[[T]]] * 3}, "panel options"),
        ({"panels": [{}, {}], "frames": [[[T]]] * 3}, "2 panels"),
    ],
)
def test_slider_says_what_is_wrong(change, message):
    arguments = {"values": VALUES, "frames": [[T]] * 3, "x": T} | change
    with pytest.raises(ValueError, match=message):
        book.Slider(**arguments)._repr_html_()


def test_slider_shows_its_caption_below(shown):
    waves(caption="Past $\\Delta = 0.2$ it fails.")._ipython_display_()
    (slider, _), (caption, _) = shown
    assert slider["text/html"] == waves()._repr_html_()
    assert caption["text/markdown"] == "Past $\\Delta = 0.2$ it fails."


def draw(kind="line"):
    fig, ax = plt.subplots(figsize=(7, 3))
    if kind == "line":
        ax.plot(T, np.sin(T))
    else:
        ax.imshow(np.eye(4))
    return fig


def test_figure_is_deterministic_and_closed(shown):
    for _ in range(2):
        fig = draw()
        book.figure(fig, "It waves, $x$.")
        assert not plt.fignum_exists(fig.number)
    (first, options), (caption, _), (second, _), _ = shown
    assert first == second and caption["text/markdown"] == "It waves, $x$."
    assert first["text/plain"] == "It waves, $x$."  # becomes the alternative text
    assert options["metadata"]["image/png"] == {"width": 672, "drawing": True}


def test_figure_carries_no_date_and_no_version(shown):
    book.figure(draw(), "It waves.")
    png = io.BytesIO(base64.b64decode(shown[0][0]["image/png"]))
    assert png.read(8) == b"\x89PNG\r\n\x1a\n"
    chunks = []
    while head := png.read(8):
        length, kind = struct.unpack(">I4s", head)
        chunks.append(kind)
        png.read(length + 4)
    assert set(chunks) <= {b"IHDR", b"PLTE", b"pHYs", b"IDAT", b"IEND"}


def test_figure_with_an_image_keeps_its_colours_on_the_dark_page(shown):
    book.figure(draw("image"), "An eye.")
    assert shown[0][1]["metadata"]["image/png"]["drawing"] is False


def test_figure_wants_a_caption():
    fig = draw()
    with pytest.raises(ValueError, match="caption"):
        book.figure(fig, "  ")
    plt.close(fig)
