"""What the README shows runs as it stands, and what it points to is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_first_example_has_five_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(BLOCKS) == 5 and len(lines) == 5


@pytest.mark.parametrize("block", BLOCKS, ids=["first", "op", "layer", "attention", "model"])
def test_block_runs_alone(block, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    run = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({str(script)!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", run], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_shapes_are_those_in_the_comments():
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)  # one after the other, as a reader would
    assert names["u"].shape == (4, 100, 16) and names["whole"].shape == (4, 100, 16)
    assert names["K"].shape == (16384,) and names["half_rate"].shape == (4, 50, 16)
    assert names["uneven"].shape == (4, 100, 16) and names["y"].shape == (8, 1000, 64)
    assert names["logits"].shape == (8, 10)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "LICENSE-TEXT.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    local = [target for target in targets if "://" not in target]
    assert local and not [target for target in local if not (ROOT / target).exists()]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("README.md", "CONTRIBUTING.md", "chapters/using.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"`?\bmake (book|test|run|export|serve|lab|clean|help)\b", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)
