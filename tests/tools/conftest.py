"""The tools lie beside the chapters, not in the package: put them on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "chapters" / "_tools"))
