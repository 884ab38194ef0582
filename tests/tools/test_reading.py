"""The keyhole of Quickstart, and the covers that are taken from it."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import reading

SIDE = 3
GREY = np.array([0, 0, 1, 0, 0.5, 0, 0.01, 0.25, 0.75])
BELIEF = np.eye(10)[[1, 1, 4, 4, 4, 9, 9, 9, 9]] * 0.9 + 0.01


def parts(html: str) -> tuple[ET.Element, list, list]:
    """The whole, the pixels with ink, the bars."""
    root = ET.fromstring(html)  # well formed as XML, too
    rects = [e for e in root.iter() if e.tag.endswith("rect")]
    return (
        root,
        [r for r in rects if r.get("data-k")],
        [r for r in rects if r.get("data-digit")],
    )


@pytest.mark.parametrize("start", range(1, 10))
def test_shows_what_has_been_read_and_nothing_else(start):
    root, pixels, bars = parts(reading.Reading(GREY, BELIEF, start)._repr_html_())
    assert [int(p.get("data-k")) for p in pixels] == [2, 4, 7, 8]  # paper is not drawn
    shown = [int(p.get("data-k")) for p in pixels if "none" not in p.get("style")]
    assert shown == [k for k in (2, 4, 7, 8) if k < start]
    heights = np.array([float(bar.get("height")) for bar in bars])
    assert np.allclose(heights / 176, BELIEF[start - 1], atol=0.006)
    assert f"most likely: {BELIEF[start - 1].argmax()}" in "".join(root.itertext())


def test_every_belief_travels_as_two_digits_a_number():
    root, _, _ = parts(reading.Reading(GREY, np.eye(10)[[1] * 9])._repr_html_())
    assert root.get("data-b").split(" ") == ["00" + "99" + "00" * 8] * 9


def test_the_page_needs_no_network_and_no_ids():
    html = reading.Reading(GREY, BELIEF)._repr_html_()
    assert " id=" not in html and "src=" not in html and "<script" not in html
    assert html.count("http") == 1 and 'xmlns="http://www.w3.org/2000/svg"' in html


@pytest.mark.parametrize(
    ("grey", "belief", "start", "says"),
    [
        (GREY[:8], BELIEF[:8], 1, "a square number"),
        (GREY, BELIEF[:, :9], 1, r"belief \(L, 10\)"),
        (GREY, BELIEF[:8], 1, "got 8 beliefs"),
        (GREY, BELIEF, 0, "start 0"),
        (GREY, BELIEF, 10, "start from 1 to 9"),
    ],
)
def test_refuses_what_does_not_fit(grey, belief, start, says):
    with pytest.raises(ValueError, match=says):
        reading.Reading(grey, belief, start)


def test_covers_come_from_the_tagged_cells():
    def cell(tags, data):
        return {"metadata": {"tags": tags}, "outputs": [{"data": data}]}

    picture = cell(["cover"], {"image/png": "AAEC"})
    page = cell(["cover"], {"text/html": ["<p>", "</p>"]})
    other = cell([], {"image/png": "BBBB"})
    found = reading.covers({"cells": [{"metadata": {}}, other, page, picture]})
    assert found == {"reading.png": b"\x00\x01\x02", "reading.html": b"<p></p>\n"}
    with pytest.raises(ValueError, match=r"reading\.png"):
        reading.covers({"cells": [page, other]})


def test_the_covers_are_those_of_quickstart():
    """If this fails, run: python chapters/_tools/reading.py"""
    stored = reading.covers(json.loads(reading.NOTEBOOK.read_text(encoding="utf-8")))
    for name, data in stored.items():
        assert (reading.CHAPTERS / "_static" / name).read_bytes() == data, name
