"""The embedded text: what its README promises."""

import hashlib
from pathlib import Path

from s4lite.data.corpora import corpus

DATA = Path(__file__).resolve().parent.parent / "chapters" / "data"


def test_readme_tells_size_checksum_and_licence():
    notes = (DATA / "README.md").read_text(encoding="utf-8")
    section = notes.split("## shakespeare.txt")[1].split("\n## ")[0]
    content = (DATA / "shakespeare.txt").read_bytes()
    assert f"`{hashlib.sha256(content).hexdigest()}`" in section
    assert f"{len(content):,} bytes" in section and "public domain" in section
    assert f"{len(content.decode('ascii')):,} characters of {len({*content})} kinds" in section


def test_it_is_the_text_of_plays():
    text = (DATA / "shakespeare.txt").read_text(encoding="ascii")
    assert text.startswith("First Citizen:\nBefore we proceed any further") and text.endswith("\n")
    assert "\r" not in text and "\t" not in text and len(text) <= 2**17
    assert text.count("\nCORIOLANUS:\n") > 100


def test_the_end_is_what_the_recipe_is_tested_on():
    notes = (DATA / "README.md").read_text(encoding="utf-8")
    section = notes.split("## shakespeare_end.txt")[1].split("\n## ")[0]
    content = (DATA / "shakespeare_end.txt").read_bytes()
    assert f"`{hashlib.sha256(content).hexdigest()}`" in section and "public domain" in section
    assert f"{len(content):,} characters of {len({*content})} kinds" in section
    assert len(content) == 1 + corpus("tiny-shakespeare").sizes[2]
    assert content[-200:] not in (DATA / "shakespeare.txt").read_bytes()
