"""The keyhole of Quickstart: a digit that is uncovered pixel by pixel, beside a model's belief.

A chapter says

    from _tools.reading import Reading
    Reading(grey, belief)  # grey (L,) from 0 to 1, belief (L, 10) after each pixel

and shows inline SVG with one slider: no kernel, no network. The landing page and the README show
what Quickstart stored, so that they cannot drift away from it:

    python chapters/_tools/reading.py

copies the outputs of its cells tagged `cover` to chapters/_static/reading.html and reading.png.
"""

import base64
import json
import sys
from html import escape
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent.parent
NOTEBOOK = CHAPTERS / "quickstart.ipynb"
COVERS = {"text/html": "reading.html", "image/png": "reading.png"}

_PIXEL, _LEFT, _TOP = 15, 8, 8  # of the picture, in SVG units
_BAR, _FOOT, _HIGH = 21, 196, 176  # of the bars: pitch, ground line, height

# One handler, no ids, no globals; free of &, < and " for the sake of XML. n pixels have been read.
_SCRIPT = (
    "var n=+this.value,r=this.closest('.s4-slider'),w=+r.dataset.w,b=r.dataset.b.split(' ')[n-1],"
    "c=(n-1)%w,y=(n-1-c)/w,s=+r.dataset.s,best=0;"
    "r.querySelectorAll('[data-k]').forEach("
    "function(p){p.style.display=+p.dataset.k>=n?'none':''});"
    "r.querySelectorAll('[data-digit]').forEach(function(p,d){"
    "var v=+b.substr(2*d,2),h=v/99*+r.dataset.h;p.setAttribute('height',h);"
    "p.setAttribute('y',+r.dataset.f-h);if(v>+b.substr(2*best,2))best=d});"
    "r.querySelector('.s4-hole').setAttribute('transform','translate('+c*s+' '+y*s+')');"
    "r.querySelector('.s4-sheet').setAttribute('d',"
    "'M'+(c+1)*s+' '+y*s+'H'+w*s+'V'+w*s+'H0V'+(y+1)*s+'H'+(c+1)*s+'Z');"
    "r.querySelector('b').textContent=n+' pixels read';"
    "r.querySelector('b+span').textContent='most likely: '+best"
)


class Reading:
    """A digit behind a sheet, the belief beside it, and a slider that uncovers the digit.

    Args:
        grey    (L,)     pixels in reading order, 0 paper, 1 ink; L a square number
        belief  (L, 10)  probabilities of the ten digits after each pixel
        start   int      how many pixels are uncovered at first
    """

    def __init__(self, grey, belief, start: int | None = None) -> None:
        self.grey = [float(g) for g in grey]
        self.side = round(len(self.grey) ** 0.5)
        self.belief = [[float(p) for p in row] for row in belief]
        self.start = len(self.grey) // 2 if start is None else start
        if self.side**2 != len(self.grey) or {len(row) for row in self.belief} != {10}:
            raise ValueError("want grey (L,) with L a square number and belief (L, 10)")
        if len(self.belief) != len(self.grey) or not 1 <= self.start <= len(self.grey):
            raise ValueError(
                f"want one belief a pixel and start from 1 to {len(self.grey)}, "
                f"got {len(self.belief)} beliefs and start {self.start}"
            )

    def __repr__(self) -> str:
        return f"a digit of {self.side} x {self.side} pixels, read one by one"

    def _repr_html_(self) -> str:
        n, side = self.start, self.side
        codes = ["".join(f"{round(99 * p):02d}" for p in row) for row in self.belief]
        shown = [int(codes[n - 1][2 * d : 2 * d + 2]) for d in range(10)]
        most = shown.index(max(shown))
        label = "A handwritten digit as far as it has been read, and the belief of the model"
        return (
            f'<div class="s4-slider" style="max-width:620px;margin:0 auto" data-w="{side}" '
            f'data-s="{_PIXEL}" data-f="{_FOOT}" data-h="{_HIGH}" data-b="{" ".join(codes)}">'
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 {side * _PIXEL + 2 * _TOP}" '
            f'width="100%" role="img" aria-label="{escape(label)}" style="display:block" '
            f'font-family="inherit" font-size="13" fill="currentColor">'
            f"{self._picture(n)}{self._bars(shown)}</svg>"
            '<div style="display:flex;flex-wrap:wrap;gap:0 1.5em;justify-content:center">'
            f'<b style="font-weight:600">{n} pixels read</b>'
            f'<span style="opacity:.8">most likely: {most}</span></div>'
            f'<input type="range" min="1" max="{len(self.grey)}" step="1" value="{n}" '
            'autocomplete="off" aria-label="pixels read" '
            f'style="display:block;width:92%;margin:4px auto" oninput="{_SCRIPT}"/></div>'
        )

    def _picture(self, n: int) -> str:
        """Ink as far as it is uncovered, the sheet over the rest, and the hole."""
        s, side = _PIXEL, self.side
        row, column = divmod(n - 1, side)
        ink = "".join(
            f'<rect data-k="{k}" x="{k % side * s}" y="{k // side * s}" width="{s}" height="{s}" '
            f'opacity="{g:.2f}" style="display:{"" if k < n else "none"}"/>'
            for k, g in enumerate(self.grey)
            if g >= 0.02
        )
        below = f"M{(column + 1) * s} {row * s}H{side * s}V{side * s}H0V{(row + 1) * s}"
        return (
            f'<g transform="translate({_LEFT} {_TOP})">{ink}'
            f'<path class="s4-sheet" d="{below}H{(column + 1) * s}Z" fill-opacity=".13"/>'
            f'<rect width="{side * s}" height="{side * s}" fill="none" stroke="currentColor" '
            'stroke-opacity=".35"/>'
            f'<rect class="s4-hole" width="{s}" height="{s}" fill="none" stroke-width="2.5" '
            f'transform="translate({column * s} {row * s})" '
            'style="stroke:var(--s4-c1,#d55e00)"/></g>'
        )

    def _bars(self, shown: list[int]) -> str:
        """Ten bars on a line."""
        left = 480 - 10 * _BAR - 12
        out = [
            f'<text x="{left - 8}" y="{_FOOT - _HIGH + 4}" text-anchor="end">1</text>',
            f'<path d="M{left} {_FOOT - _HIGH}H{left + 10 * _BAR}" fill="none" '
            'stroke="currentColor" stroke-opacity=".15"/>',
            f'<path d="M{left} {_FOOT}H{left + 10 * _BAR}" fill="none" stroke="currentColor" '
            'stroke-opacity=".6"/>',
        ]
        for d, v in enumerate(shown):
            x, h = left + d * _BAR, v / 99 * _HIGH
            out.append(
                f'<rect data-digit="{d}" x="{x + 3}" y="{_FOOT - h:g}" width="{_BAR - 6}" '
                f'height="{h:g}" style="fill:var(--s4-c0,#0072b2)"/>'
                f'<text x="{x + _BAR / 2:g}" y="{_FOOT + 17}" text-anchor="middle">{d}</text>'
            )
        return "".join(out)


def covers(notebook: dict) -> dict[str, bytes]:
    """The pictures of the cells tagged `cover`, by the name of their file."""
    found: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        if "cover" not in cell["metadata"].get("tags", []):
            continue
        for output in cell["outputs"]:
            for kind, name in COVERS.items():
                if kind in output.get("data", {}):
                    data = "".join(output["data"][kind])
                    is_text = kind.startswith("text/")
                    found[name] = (data + "\n").encode() if is_text else base64.b64decode(data)
    if missing := set(COVERS.values()) - set(found):
        raise ValueError(f"want a picture for {sorted(missing)} in a cell tagged cover, got none")
    return found


def main() -> int:
    """Write the covers."""
    for name, data in covers(json.loads(NOTEBOOK.read_text(encoding="utf-8"))).items():
        (CHAPTERS / "_static" / name).write_bytes(data)
        print(f"{name}: {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
