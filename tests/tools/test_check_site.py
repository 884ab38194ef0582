"""The browser check finds what it is for: each fault, planted in a small site, is named."""

import sys

import check_site
import pytest

needs_browser = pytest.mark.skipif(
    check_site.missing() is not None, reason=str(check_site.missing())
)

STYLE = """<style>
body { background: #fff }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }
</style>"""
GOOD = """<article>
<h1 id='top'>Title</h1>
<p>Text and <code>\\(code\\)</code>, <a href='#top'>up</a>.</p>
</article>"""
SLIDER = """<div class='s4-slider'>
<svg><path data-d='M0 0|M1 1' d='M0 0'/></svg><input type='range' min='0' max='1' value='0'>
</div>"""


def page(body: str, head: str = STYLE) -> str:
    """A page that is right, but for what its body says."""
    meta = "<meta charset='utf-8'><link rel='icon' href='data:,'>"
    return f"<!doctype html><html><head>{meta}{head}</head><body>{GOOD}{body}</body></html>"


def away(target: str) -> str:
    return f'<meta http-equiv="Refresh" content="0; url={target}" />'


PLANTED = {  # the page's body, and what must be said of it
    "cdn": (
        "<script src='https://cdn.example/mathjax@3'></script>",
        "cdn.example/mathjax@3, beyond",
    ),
    "lost_file": ("<img src='lost.png' alt=''>", "HTTP 404: lost.png"),
    "throws": ("<script>nothing.here()</script>", "page error: nothing is not defined"),
    "complains": ("<script>console.error('ouch')</script>", "console error: ouch"),
    "wide": ("<div style='width: 700px'>wide</div>", "at 390 px: "),
    "untypeset": ("<span class='math'>\\(x^2\\)</span>", "formula not typeset: "),
    "math_error": (
        "<mjx-merror data-mjx-error='Undefined'>x</mjx-merror>",
        "an error: 'Undefined'",
    ),
    "dead_link": ("<a href='gone.html'>gone</a>", "link to gone.html, which is not there"),
    "dead_anchor": ("<a href='good.html#x'>gone</a>", "link to good.html#x: no such place"),
    "stuck_slider": (SLIDER, "1 slider(s) do not move"),
}
PAGES = {name: page(body) for name, (body, _) in PLANTED.items()}
SAID = {name: said for name, (_, said) in PLANTED.items()}
for name, text in [("dollars", "Let $$x^2$$ be"), ("dollar", "Let $x_k$ be"), ("tex", "a \\bar A")]:
    PAGES[name], SAID[name] = page("").replace("Text and", f"{text} <b>"), "raw TeX in the text: "
PAGES["light_only"] = page("", head="<style>body { background: #fff }</style>")
SAID["light_only"] = "dark scheme not applied"
PAGES["lost_redirect"], SAID["lost_redirect"] = away("gone.html"), "sends its reader to gone.html"


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """One visit of a site with every fault on a page of its own, and one page without."""
    site = tmp_path_factory.mktemp("site")
    for name, html in {**PAGES, "good": page(""), "moved": away("good.html")}.items():
        (site / f"{name}.html").write_text(html, encoding="utf8")
    return check_site.check(site)


@needs_browser
@pytest.mark.parametrize("name", PAGES)
def test_finds_the_planted_fault_and_no_other(faults, name):
    here = [fault for fault in faults if fault.startswith(f"{name}.html: ")]
    assert here and all(SAID[name] in fault for fault in here), here


@needs_browser
def test_a_good_page_is_good(faults):
    assert [f for f in faults if f.startswith(("good.html", "moved.html"))] == []


@needs_browser
def test_pages_shots_and_exit_status(tmp_path, capsys):
    (tmp_path / "good.html").write_text(page(""), encoding="utf8")
    (tmp_path / "wide.html").write_text(PAGES["wide"], encoding="utf8")
    shots = tmp_path / "shots"
    assert check_site.main([str(tmp_path), "--pages", "good.html", "--shots", str(shots)]) == 0
    assert sorted(p.name for p in shots.iterdir()) == [
        f"good-{w}-{s}.png" for w in ("1280", "390") for s in ("dark", "light")
    ]
    assert check_site.main([str(tmp_path)]) == 1
    assert "wide.html: at 390 px" in capsys.readouterr().err
    assert check_site.main([str(tmp_path), "--pages", "none.html"]) == 1


def test_a_missing_browser_is_said_aloud(tmp_path, capsys, monkeypatch):
    (tmp_path / "good.html").write_text(page(""), encoding="utf8")
    monkeypatch.setattr(check_site, "BROWSERS", ("no-such-browser",))
    assert check_site.main([str(tmp_path)]) == 0
    assert "NOT CHECKED IN A BROWSER: no browser found" in capsys.readouterr().err
    assert check_site.main([str(tmp_path), "--require"]) == 2


def test_a_missing_playwright_is_said_aloud(tmp_path, capsys, monkeypatch):
    (tmp_path / "good.html").write_text(page(""), encoding="utf8")
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert check_site.main([str(tmp_path), "--require"]) == 2
    assert "playwright is not installed" in capsys.readouterr().err


def test_an_empty_folder_is_no_site(tmp_path):
    assert check_site.main([str(tmp_path)]) == 1
