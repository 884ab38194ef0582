"""Figures and sliders for the chapters.

A chapter's first code cell says

    import matplotlib.pyplot as plt
    from _tools.book import Slider, figure
    plt.style.use("book.mplstyle")

A still figure is the last line of its cell; the caption states the finding, with numbers from the
cell:

    fig, ax = plt.subplots()
    ax.loglog(dts, errors)
    figure(fig, f"Halving $\\Delta$ divides the error by {ratio:.1f}: the method has order two.")

`figure` shows the picture and the caption as two outputs, and closes the figure. Any MyST markdown
may stand in the caption: `$math$`, `*emphasis*`, `{eq}` and `{doc}` roles. Write it as one line,
without a leading "Figure:". A cell may show several figures. On the dark page a drawing of lines
turns light on dark, hues kept (so name curves by label or colour, not "the black line"); a figure
with an image in it (imshow, pcolormesh) stays as it is. Two panels side by side become small on a
phone: prefer `plt.subplots(2, 1, figsize=(7, 5))` for anything with text.

A slider shows curves computed beforehand, one frame a value; the reader needs no kernel and no
network:

    dts = [0.02, 0.05, 0.1, 0.2, 0.5]
    Slider(dts, [[exact, euler(dt)] for dt in dts], x=t, names=["exact", "Euler"],
           styles=["-", "o"], label="Δ", xlabel="time (s)", ylabel="position (m)",
           caption="Past $\\Delta = 0.2$ Euler's steps blow up.")

* A frame is a list of curves, as many in every frame; a curve is `y` (drawn over the shared `x`)
  or a pair `(x, y)`.
* `names`, `styles` and `colors` have one entry a curve. Styles: "-", "--", ":" lines; "o", "x"
  points; "step", "stem". Colours: an index into the palette (0, 1, ...), or "text" for the colour
  of the writing. A curve named "" stays out of the legend.
* `fixed` lists curves that are the same in every frame (a circle, an exact solution), drawn once;
  `fixed_names`, `fixed_styles`, `fixed_colors` go with them.
* `xlim`, `ylim` default to all frames together, so that nothing jumps; give them where a blow-up
  should leave the picture.
* `xscale`, `yscale`: "linear" or "log". `equal=True` gives both axes one scale (for the complex
  plane). `height` is that of the axes; their width is 420. `title` stands above.
* `readout`: one short text a frame, shown beside the value ("largest |pole| = 1.02").
* `start`: which frame comes first, by default the middle one. `format` shows the values.
* A second knob: `second={"values": [8, 32, 96], "label": "N", "format": "{:g}"}`. `frames[i][j]`
  belongs to `values[i]` and `second["values"][j]`, `readout[i][j]` too, and `start` is a pair.
* Two or more panels, one above the other, share the slider:
  `panels=[dict(xlabel=..., names=..., equal=True), dict(...)]`, and a frame is then a list of
  panels, each a list of curves. A panel takes the options above from `names` to `title`, and `x`.
* Write it as the last line of the cell (or `display(Slider(...))`). Some 10 to 40 frames; a slider
  is then 10 to 40 kB.

Labels of a slider are plain text (Greek letters as such, e.g. "Δ", "Re λ"); captions are markdown
with mathematics.
"""

import base64
import inspect
import io
import math
from collections.abc import Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.collections import QuadMesh
from PIL import Image

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#808080")
DPI = 160  # a figure of 7 in is 1120 dots wide, shown on at most 672 css pixels


def figure(fig, caption: str, *, alt: str | None = None) -> None:
    """Show `fig` as a PNG and its caption as markdown, then close it. Same figure, same bytes."""
    if not caption.strip():
        raise ValueError("a figure wants a caption that states the finding; got an empty one")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(fig)
    painted = any(
        ax.images or any(isinstance(c, QuadMesh) for c in ax.collections) for ax in fig.axes
    )
    shown = {"width": round(96 * fig.get_size_inches()[0]), "drawing": not painted}
    picture = base64.b64encode(buffer.getvalue() if painted else few_colors(buffer)).decode()
    data = {"image/png": picture, "text/plain": alt or caption}
    display(data, raw=True, metadata={"image/png": shown})
    show_caption(caption)


def few_colors(png: io.BytesIO) -> bytes:
    """A drawing of lines as a PNG of 256 colours: the same to the eye, a third as big.

    Its colours are some fifteen and their shades at the edges of lines. White stays white. Same
    picture, same bytes.
    """
    table = Image.open(png).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=0)
    out = io.BytesIO()
    table.save(out, "PNG", optimize=True)
    return out.getvalue()


def show_caption(caption: str) -> None:
    """Show a caption as markdown."""
    display({"text/markdown": caption, "text/plain": caption}, raw=True)


class Slider:
    """Curves that follow a slider: inline SVG and one event handler; see the module's docstring."""

    def __init__(
        self,
        values: Sequence,
        frames: Sequence,
        x=None,
        *,
        label: str = "Δ",
        format: str = "{:g}",
        start: int | tuple[int, int] | None = None,
        readout: Sequence | None = None,
        caption: str = "",
        panels: Sequence[dict] | None = None,
        second: dict | None = None,
        **axes,
    ):
        frames = _a_value(values, frames, "frame")
        readout = None if readout is None else _a_value(values, readout, "readout")
        self.knobs = [(label, len(frames))]
        self.texts = [f"{label} = {format.format(value)}" for value in values]
        if second is not None:
            other = {"label": "N", "format": "{:g}"} | second
            frames = [f for row in frames for f in _a_value(other["values"], row, "frame")]
            if readout is not None:
                readout = [t for row in readout for t in _a_value(other["values"], row, "readout")]
            tails = [f"{other['label']} = {other['format'].format(v)}" for v in other["values"]]
            self.texts = [f"{text}, {tail}" for text in self.texts for tail in tails]
            self.knobs.append((other["label"], len(tails)))
        if panels is None:
            panels, frames = [{}], [[frame] for frame in frames]
        if any(len(frame) != len(panels) for frame in frames):
            got = sorted({len(frame) for frame in frames})
            raise ValueError(f"want {len(panels)} panels in every frame; got {got}")
        known = set(inspect.signature(_Panel).parameters) - {"frames"}
        if unknown := set(axes).union(*panels) - known:
            raise ValueError(f"want panel options among {sorted(known)}; got {sorted(unknown)}")
        self.panels = [
            _Panel([frame[i] for frame in frames], **{"x": x, **axes, **panel})
            for i, panel in enumerate(panels)
        ]
        self.readout = None if readout is None else [str(text) for text in readout]
        sizes = [size for _, size in self.knobs]
        starts = [size // 2 for size in sizes] if start is None else np.atleast_1d(start).tolist()
        self.places = [range(size)[at] for size, at in zip(sizes, starts, strict=True)]
        self.strides = [1] if second is None else [sizes[1], 1]
        self.start = sum(at * s for at, s in zip(self.places, self.strides, strict=True))
        self.label, self.caption = label, caption

    def _ipython_display_(self) -> None:
        plain = f"slider: {self.caption or self.label}"
        display({"text/html": self._repr_html_(), "text/plain": plain}, raw=True)
        if self.caption:
            show_caption(self.caption)

    def _repr_html_(self) -> str:
        value = self.follow("b", "font-weight:600", self.texts)
        readout = self.follow("span", "opacity:.8", self.readout) if self.readout else ""
        return (
            '<div class="s4-slider" style="max-width:620px;margin:0 auto">'
            + "".join(panel.html(self.start) for panel in self.panels)
            + f'<div style="{_ROW.format("1.5em")};margin-top:6px">{value}{readout}</div>'
            + (self.knob(0) if len(self.knobs) == 1 else self.rows())
            + "</div>"
        )

    def rows(self) -> str:
        """Both knobs, one below the other, each with its name before it."""
        names = [
            f'<span style="text-align:right">{escape(label)}</span>' for label, _ in self.knobs
        ]
        rows = [
            f'<label style="display:contents">{n}{self.knob(i)}</label>'
            for i, n in enumerate(names)
        ]
        return (
            '<div style="display:grid;grid-template-columns:auto 1fr;align-items:center;'
            f'gap:0 .7em;width:92%;margin:4px auto">{"".join(rows)}</div>'
        )

    def knob(self, i: int) -> str:
        """The i-th range input."""
        label, size = self.knobs[i]
        style = "display:block;width:92%;margin:4px auto" if len(self.knobs) == 1 else "min-width:0"
        return (
            f'<input type="range" min="0" max="{size - 1}" step="1" value="{self.places[i]}" '
            f'data-s="{self.strides[i]}" autocomplete="off" aria-label="{escape(label)}" '
            f'aria-valuetext="{escape(self.texts[self.start])}" oninput="{_SCRIPT}" '
            f'style="{style}"/>'
        )

    def follow(self, tag: str, style: str, texts: Sequence[str]) -> str:
        """A text that follows the slider."""
        if any("¦" in text for text in texts):
            raise ValueError("want texts without the broken bar ¦, which parts the frames")
        every, now = escape("¦".join(texts)), escape(texts[self.start])
        return f'<{tag} style="{style}" data-t="{every}">{now}</{tag}>'


# Everything hangs on `this`: no global name, no id, nothing to wait for, and two copies of a slider
# on one page are two sliders. Kept free of &, < and " for the sake of XML.
_SCRIPT = (
    "var i=0,r=this.closest('.s4-slider');"
    "r.querySelectorAll('input').forEach(function(e){i+=e.value*e.dataset.s});"
    "r.querySelectorAll('[data-d]').forEach("
    "function(p){p.setAttribute('d',p.dataset.d.split('|')[i])});"
    "r.querySelectorAll('[data-t]').forEach("
    "function(p){p.textContent=p.dataset.t.split('¦')[i]});"
    "r.querySelectorAll('input').forEach("
    "function(e){e.setAttribute('aria-valuetext',r.querySelector('[data-t]').textContent)})"
)

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 52, 8, 8, 40
_ROW = "display:flex;flex-wrap:wrap;gap:0 {};justify-content:center"
_STROKES = {"o": 10, "x": 4, "stem": 3.4, "-": 3.8, "--": 3.8, ":": 3.8, "step": 3.8}
_DASHES = {"--": "7,5", ":": "1,5"}


class _Panel:
    """One pair of axes and its curves in every frame."""

    def __init__(
        self,
        frames,
        *,
        x=None,
        names: Sequence[str] | None = None,
        styles: Sequence[str] | None = None,
        colors: Sequence | None = None,
        fixed: Sequence = (),
        fixed_names: Sequence[str] | None = None,
        fixed_styles: Sequence[str] | None = None,
        fixed_colors: Sequence | None = None,
        xlabel: str = "",
        ylabel: str = "",
        xlim: tuple[float, float] | None = None,
        ylim: tuple[float, float] | None = None,
        xscale: str = "linear",
        yscale: str = "linear",
        equal: bool = False,
        height: int | None = None,
        title: str = "",
    ):
        frames = [[_curve(c, x) for c in frame] for frame in frames]
        fixed = [_curve(c, x) for c in fixed]
        m, n = len(frames[0]), len(fixed)
        if any(len(frame) != m for frame in frames):
            got = sorted({len(frame) for frame in frames})
            raise ValueError(f"want as many curves in every frame; got {got}")
        self.names = _listed("names", names, [""] * m)
        self.names += _listed("fixed_names", fixed_names, [""] * n)
        self.styles = _listed("styles", styles, ["-"] * m)
        self.styles += _listed("fixed_styles", fixed_styles, ["-"] * n)
        self.colors = _listed("colors", colors, list(range(m)))
        self.colors += _listed("fixed_colors", fixed_colors, ["text"] * n)
        if wrong := set(self.styles) - set(_STROKES):
            raise ValueError(f"want styles among {list(_STROKES)}; got {sorted(wrong)}")
        every = [curve for frame in frames for curve in frame] + fixed
        self.xaxis = _Axis([c[0] for c in every], xlim, xscale, margin=0.02)
        self.yaxis = _Axis([c[1] for c in every], ylim, yscale, margin=0.06)
        self.xlabel, self.ylabel, self.title = xlabel, ylabel, title
        room = _WIDTH - _LEFT - _RIGHT
        aspect = self.yaxis.span / self.xaxis.span
        self.height = height or (round(room * min(1.0, aspect)) if equal else 220)
        self.width = min(room, round(self.height / aspect)) if equal else room
        self.left = _LEFT + (room - self.width) // 2
        self.xaxis.place(0, self.width)
        self.yaxis.place(self.height, 0)
        self.moving = [[self.path(f[i], self.styles[i]) for f in frames] for i in range(m)]
        self.still = [self.path(c, self.styles[m + i]) for i, c in enumerate(fixed)]

    def path(self, curve, style: str) -> str:
        """The curve as an SVG path, in half units, so that whole numbers are fine enough."""
        px, py = self.xaxis.whole(curve[0]), self.yaxis.whole(curve[1])
        good = self.xaxis.shows(curve[0]) & self.yaxis.shows(curve[1])
        if style in ("o", "x", "stem"):
            good &= (abs(px - self.width) <= self.width + 2) & (
                abs(py - self.height) <= self.height + 2
            )
            points = zip(px[good].tolist(), py[good].tolist(), strict=True)
            if style == "o":
                return "".join(f"M{a} {b}h0" for a, b in points)
            if style == "x":
                return "".join(f"M{a - 7} {b - 7}l14 14m-14 0l14-14" for a, b in points)
            ground = int(np.clip(self.yaxis.whole(np.zeros(1))[0], 0, 2 * self.height))
            return "".join(f"M{a} {ground}V{b}h0" for a, b in points)
        pieces = []
        edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            a, b = px[begin:end], py[begin:end]
            if style == "step":
                a, b = np.repeat(a, 2)[1:], np.repeat(b, 2)[:-1]
            keep = _corners(a, b)
            pieces.append(_relative(a[keep].tolist(), b[keep].tolist()))
        return "".join(pieces)

    def html(self, start: int) -> str:
        """The panel with the frame `start`."""
        m, (w, h) = len(self.moving), (self.width, self.height)
        still = [self.drawn(m + i, path) for i, path in enumerate(self.still)]
        moving = [self.drawn(i, p[start], "|".join(p)) for i, p in enumerate(self.moving)]
        title = f'<div style="text-align:center;font-weight:600">{escape(self.title)}</div>'
        return (
            f"{title if self.title else ''}"
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {h + _TOP + _BOTTOM}" '
            f'width="100%" role="img" aria-label="{escape(f"{self.ylabel} over {self.xlabel}")}" '
            'style="display:block" font-family="inherit" font-size="12.5" fill="currentColor">'
            f'<g transform="translate({self.left} {_TOP})">{self.frame()}'
            f'<svg width="{w}" height="{h}" viewBox="0 0 {2 * w} {2 * h}" overflow="hidden" '
            'fill="none" stroke-linejoin="round" stroke-linecap="round">'
            f"{''.join(still + moving)}</svg></g></svg>{self.legend()}"
        )

    def drawn(self, i: int, path: str, every: str | None = None) -> str:
        """One curve; `every` holds its paths in all frames."""
        style = self.styles[i]
        stroke = f"stroke:{_color(self.colors[i])};stroke-width:{_STROKES[style]}"
        dashes = f";stroke-dasharray:{_DASHES[style]}" if style in _DASHES else ""
        follow = "" if every is None else f' data-d="{every}"'
        return f'<path d="{path}"{follow} style="{stroke}{dashes}"/>'

    def frame(self) -> str:
        """Grid, ticks and labels."""
        w, h = self.width, self.height
        line = 'fill="none" stroke="currentColor" stroke-opacity='
        middle, out = 'text-anchor="middle"', []
        for at, text in self.xaxis.ticks():
            out.append(f'<path d="M{at:g} 0V{h}" {line}".13"/>')
            out.append(f'<text x="{at:g}" y="{h + 16}" {middle}>{text}</text>')
        for at, text in self.yaxis.ticks():
            out.append(f'<path d="M0 {at:g}H{w}" {line}".13"/>')
            out.append(f'<text x="-6" y="{at + 4:g}" text-anchor="end">{text}</text>')
        out.append(f'<path d="M0 0V{h}H{w}" {line}".6"/>')
        out.append(f'<text x="{w / 2:g}" y="{h + 34}" {middle}>{escape(self.xlabel)}</text>')
        turned = f'transform="translate({12 - _LEFT} {h / 2:g}) rotate(-90)"'
        out.append(f"<text {turned} {middle}>{escape(self.ylabel)}</text>")
        return "".join(out)

    def legend(self) -> str:
        """Names with their marks, outside of the SVG so that they wrap and keep their size."""
        items = []
        for name, style, color in zip(self.names, self.styles, self.colors, strict=True):
            mark = {"o": "M11 6h0", "x": "M7 2l8 8m-8 0l8-8"}.get(style, "M1 6H21")
            stroke = f"stroke:{_color(color)};stroke-width:{ {'o': 7, 'x': 2}.get(style, 2.4) }"
            dashes = f";stroke-dasharray:{_DASHES[style]}" if style in _DASHES else ""
            if name:
                items.append(
                    '<span style="white-space:nowrap"><svg width="22" height="12" '
                    'style="vertical-align:middle;margin-right:4px"><path '
                    f'd="{mark}" fill="none" stroke-linecap="round" style="{stroke}{dashes}"/>'
                    f"</svg>{escape(name)}</span>"
                )
        return f'<div style="{_ROW.format("1.2em")}">{"".join(items)}</div>' if items else ""


class _Axis:
    """Data to picture, along one direction."""

    def __init__(self, data: list[np.ndarray], limits, scale: str, margin: float):
        if scale not in ("linear", "log"):
            raise ValueError(f"want scales linear or log; got {scale!r}")
        self.log = scale == "log"
        if limits is None:
            flat = np.concatenate([np.zeros(0), *data])
            flat = flat[self.shows(flat)]
            low, high = (flat.min(), flat.max()) if flat.size else (0.1, 1.0)
            low, high = (self.forward(float(f"{v:.9g}")) for v in (low, high))  # see `whole`
            pad = margin * (high - low) if high > low else 0.5
            self.low, self.high = low - pad, high + pad
        else:
            self.low, self.high = (self.forward(float(v)) for v in limits)
        self.span = self.high - self.low
        if not 0 < self.span < math.inf:
            raise ValueError(f"want limits low < high (and > 0 on a log axis); got {limits}")

    def forward(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value) if value > 0 else -math.inf

    def shows(self, data: np.ndarray) -> np.ndarray:
        """Where there is a number to show."""
        return np.isfinite(data) & (data > 0) if self.log else np.isfinite(data)

    def place(self, first: float, last: float) -> None:
        """Say where the two ends are in the picture."""
        self.first, self.last = first, last

    def at(self, value):
        return self.first + (value - self.low) / self.span * (self.last - self.first)

    def whole(self, data: np.ndarray) -> np.ndarray:
        """Places in half units. Rounded twice, so that processors differing in last bits agree."""
        with np.errstate(all="ignore"):
            data = np.log10(data) if self.log else data
            place = np.nan_to_num(2 * self.at(data), nan=0.0, posinf=1e6, neginf=-1e6)
        return np.floor(np.round(place.clip(-20000, 20000), 5) + 0.5).astype(np.int64)

    def ticks(self) -> list[tuple[float, str]]:
        """Where the ticks are, and what they say."""
        if self.log and self.span >= 0.9:
            every = math.ceil(self.span / 6)
            powers = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
            return [(round(self.at(p), 2), _power(p)) for p in powers if p % every == 0]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        rough = (high - low) / (6 if abs(self.last - self.first) > 250 else 4)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        plain = 1e-3 <= max(abs(low), abs(high)) < 1e5
        ticks = []
        for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
            text = f"{i * step:.{digits}f}" if plain else f"{i * step:.3g}"
            ticks.append((round(self.at(self.forward(i * step)), 2), text.replace("-", "−")))
        return ticks


def _power(p: int) -> str:
    return f'10<tspan dy="-5" font-size="9.5">{str(p).replace("-", "−")}</tspan>'


def _curve(curve, x) -> tuple[np.ndarray, np.ndarray]:
    """A curve is y over the shared x, or a pair (x, y)."""
    if isinstance(curve, tuple):
        x, curve = curve
    y = np.asarray(curve, dtype=float).ravel()
    x = np.arange(y.size, dtype=float) if x is None else np.asarray(x, dtype=float).ravel()
    if x.shape != y.shape:
        raise ValueError(f"want as many x as y; got {x.size} and {y.size}")
    return x, y


def _a_value(values: Sequence, things: Sequence, what: str) -> list:
    """The things as a list, one a value."""
    values, things = list(values), list(things)
    if not values or len(values) != len(things):
        got = f"{len(values)} values, {len(things)} {what}s"
        raise ValueError(f"want one {what} a value, at least one; got {got}")
    return things


def _listed(what: str, given, default: list) -> list:
    if given is None:
        return default
    if isinstance(given, str) or len(given) != len(default):
        raise ValueError(f"want {len(default)} {what}, one a curve; got {given!r}")
    return list(given)


def _color(color) -> str:
    if isinstance(color, int | np.integer):
        return f"var(--s4-c{color % len(PALETTE)},{PALETTE[color % len(PALETTE)]})"
    return "currentColor" if color == "text" else escape(str(color))


def _relative(x: list[int], y: list[int]) -> str:
    """A line through whole points: where it starts, then steps, as short as SVG allows."""
    flat = [number for point in zip(x, y, strict=True) for number in point]
    steps = [b - a for a, b in zip(flat[:-2], flat[2:], strict=True)]
    rest = "".join(f"{'' if s < 0 else ' '}{s}" for s in steps)
    return f"M{flat[0]} {flat[1]}" + (f"l{rest.lstrip()}" if rest else "h0")


def _corners(x: np.ndarray, y: np.ndarray, tolerance: float = 0.5) -> np.ndarray:
    """Indices that keep a line within `tolerance` half units (Ramer, Douglas and Peucker)."""
    keep, stack = {0, len(x) - 1}, [(0, len(x) - 1)]
    while stack:
        a, b = stack.pop()
        if b - a < 2:
            continue
        dx, dy = x[b] - x[a], y[b] - y[a]
        rx, ry = x[a + 1 : b] - x[a], y[a + 1 : b] - y[a]
        length = int(dx * dx + dy * dy)  # whole numbers: the same corners everywhere
        far = (dx * ry - dy * rx) ** 2 if length else rx * rx + ry * ry
        i = int(far.argmax())
        if far[i] > tolerance**2 * (length or 1):
            keep.add(a + 1 + i)
            stack += [(a, a + 1 + i), (a + 1 + i, b)]
    return np.array(sorted(keep))
