"""Look at the built site in a real browser, as a reader would: wide and narrow, light and dark.

    python chapters/_tools/check_site.py _build/html [--pages PAGE ...] [--shots DIR] [--require]

On every page: no request leaves the site, none fails, no script throws, every formula is typeset,
every slider moves, every link inside the site leads somewhere, nothing is wider than a phone of
390 px, and both colour schemes are really applied.

Exit status 1 if something is wrong. Without a browser the check says so aloud and passes; under
--require it ends with 2.
"""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

READY = """async () => {
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) await MathJax.startup.promise;
  await document.fonts.ready;
}"""

# What a page says about itself. Raw TeX is TeX left in the text, outside of code.
INSPECT = r"""() => {
  const article = document.querySelector('article, main') || document.body;
  const all = what => [...document.querySelectorAll(what)];
  const width = e => e ? e.getBoundingClientRect().width : 0;
  const bare = all('.math').filter(e => {
    const set = e.querySelector('mjx-container');
    return !set || (e.getClientRects().length > 0 && !width(set));
  });
  const tex = /\\[(\[]|\$\$|\\begin\{|\\(frac|bar|mathbf|Delta|lambda)\b|\$[^$\s][^$\n]{0,80}\$/;
  const code = 'code, pre, script, style, textarea, mjx-container, .math';
  const walk = document.createTreeWalker(article, NodeFilter.SHOW_TEXT), raw = [];
  for (let n = walk.nextNode(); n; n = walk.nextNode())
    if (tex.test(n.data) && !n.parentElement.closest(code)) raw.push(n.data.trim().slice(0, 60));
  let ground = document.body, colour = 'rgba(0, 0, 0, 0)';
  for (; ground && /, 0\)$/.test(colour); ground = ground.parentElement)
    colour = getComputedStyle(ground).backgroundColor;
  const [r, g, b] = /, 0\)$/.test(colour) ? [255, 255, 255] : colour.match(/[\d.]+/g).map(Number);
  return {
    formulas: all('.math').length,
    bare: bare.map(e => e.textContent.trim().slice(0, 60)),
    raw,
    wrong: all('mjx-merror, [data-mjx-error]')
      .map(e => (e.getAttribute('data-mjx-error') || e.textContent).slice(0, 60)),
    light: (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255,
    ids: all('[id]').map(e => e.id),
    links: all('a[href]').map(e => e.href),
  };
}"""

OVERFLOW = """() => {
  const over = document.scrollingElement.scrollWidth - window.innerWidth;
  if (over <= 0) return null;
  const worst = [...document.body.querySelectorAll('*')]
    .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
    .map(e => e.tagName.toLowerCase() + '.' + [...e.classList].join('.')).pop();
  return over + ' px too wide' + (worst ? ', at ' + worst : '');
}"""

SLIDERS = """() => [...document.querySelectorAll('.s4-slider')].filter(r => {
  const paths = () => [...r.querySelectorAll('[data-d]')].map(p => p.getAttribute('d'));
  const look = () => paths().join() + r.innerText;
  return [...r.querySelectorAll('input[type=range]')].some(input => {
    const was = input.value, before = look();
    const move = v => {
      input.value = v;
      input.dispatchEvent(new Event('input', {bubbles: true}));
    };
    move(was === input.max ? input.min : input.max);
    const after = look();
    move(was);
    return input.min !== input.max && (before === after || before !== look());
  });
}).length"""


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=600")
        super().end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def served(site: Path):
    """The site on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def browser_path() -> str | None:
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def missing() -> str | None:
    """Why the site cannot be looked at, or None."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the Python package playwright is not installed"
    return None if browser_path() else f"no browser found (looked for {', '.join(BROWSERS[:4])})"


def all_pages(site: Path) -> list[str]:
    pages = (p.relative_to(site).as_posix() for p in site.rglob("*.html"))
    return sorted(page for page in pages if not page.startswith("_static/"))


def redirect(site: Path, page: str) -> str | None:
    """Where a page that only sends its reader on, sends him."""
    head = (site / page).read_text(encoding="utf8")[:2000]
    found = re.search(r"""http-equiv=["']?refresh["']?[^>]*url=([^"'>\s]+)""", head, re.I)
    return found.group(1) if found else None


def check(
    site: Path, pages: list[str] | None = None, shots: Path | None = None, say=lambda line: None
) -> list[str]:
    """Visit the pages and return what is wrong, one line a fault."""
    from playwright.sync_api import sync_playwright

    site = Path(site)
    every = all_pages(site)
    lost = sorted(set(pages or ()) - set(every))
    faults = [f"{page}: there is no such page" for page in lost]
    wanted = [page for page in (pages or every) if page not in lost]
    found: dict[str, list[str]] = {page: [] for page in wanted}
    seen: dict[str, dict] = {}
    for page in list(wanted):
        target = redirect(site, page)
        if target is not None:
            wanted.remove(page)
            if not (site / page).parent.joinpath(target).exists():
                found[page].append(f"sends its reader to {target}, which is not there")
    with served(site) as base, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path(), args=FLAGS)
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=WIDE, color_scheme=scheme)
            tab, heard = context.new_page(), []
            _listen(tab, base, heard)
            for page in wanted:
                heard.clear()
                seen[page] = _look(tab, base + page, scheme)
                _shoot(tab, shots, page, scheme)
                said = dict.fromkeys(heard + seen[page]["faults"])
                found[page] += [fault for fault in said if fault not in found[page]]
            context.close()
        browser.close()
        for page in wanted:
            found[page] += _dead(site, base, page, seen)
    for page in found:
        state = "ok" if not found[page] else f"{len(found[page])} faults"
        what = f"{seen[page]['formulas']:4d} formulas" if page in seen else "sends on"
        say(f"{page:44s} {what:13s}   {state}")
        faults += [f"{page}: {fault}" for fault in found[page]]
    return faults


def _listen(tab, base: str, heard: list[str]) -> None:
    """Collect what the browser reports while pages load."""

    def asked(request):
        if not request.url.startswith((base, "data:", "blob:")):
            heard.append(f"asks for {request.url.split('?')[0]}, beyond the site")

    def failed(request):
        if request.url.startswith(base):
            heard.append(f"request failed: {request.url.removeprefix(base)} ({request.failure})")

    def answered(response):
        if response.status >= 400:
            heard.append(f"HTTP {response.status}: {response.url.removeprefix(base)}")

    def console(message):
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            heard.append(f"console error: {message.text[:160]}")

    tab.on("request", asked)
    tab.on("requestfailed", failed)
    tab.on("response", answered)
    tab.on("pageerror", lambda error: heard.append(f"page error: {str(error)[:160]}"))
    tab.on("console", console)


def _look(tab, address: str, scheme: str) -> dict:
    """Load a page, look at it wide, then narrow."""
    tab.set_viewport_size(WIDE)
    tab.goto(address, wait_until="load")
    tab.evaluate(READY)
    seen = tab.evaluate(INSPECT)
    faults = [f"formula not typeset: {text!r}" for text in seen["bare"]]
    faults += [f"formula with an error: {text!r}" for text in seen["wrong"]]
    faults += [f"raw TeX in the text: {text!r}" for text in seen["raw"]]
    if (seen["light"] > 0.5) != (scheme == "light"):
        faults.append(f"{scheme} scheme not applied: background of lightness {seen['light']:.2f}")
    if stuck := tab.evaluate(SLIDERS):
        faults.append(f"{stuck} slider(s) do not move")
    tab.set_viewport_size(PHONE)
    if over := tab.evaluate(OVERFLOW):
        faults.append(f"at 390 px: {over}")
    return {"faults": faults, **seen}


def _shoot(tab, shots: Path | None, page: str, scheme: str) -> None:
    for size in (PHONE, WIDE) if shots is not None else ():
        tab.set_viewport_size(size)
        tab.wait_for_timeout(400)  # side bars slide
        name = page.removesuffix(".html").replace("/", "_")
        tab.screenshot(path=str(shots / f"{name}-{size['width']}-{scheme}.png"), full_page=True)


def _dead(site: Path, base: str, page: str, seen: dict[str, dict]) -> list[str]:
    """Links inside the site that lead nowhere."""
    faults = []
    for link in dict.fromkeys(seen[page]["links"]):
        if not link.startswith(base):
            continue
        address, fragment = urldefrag(link.removeprefix(base))
        name = unquote(address.partition("?")[0]) or "index.html"
        if not (site / name).exists():
            faults.append(f"link to {name}, which is not there")
        elif fragment and name in seen and unquote(fragment) not in seen[name]["ids"]:
            faults.append(f"link to {name}#{unquote(fragment)}: no such place on that page")
    return faults


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", type=Path, help="folder of the built site")
    parser.add_argument("--pages", nargs="+", help="only these pages, relative to the site")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    parser.add_argument("--require", action="store_true", help="fail where no browser is installed")
    options = parser.parse_args(arguments)
    if not all_pages(options.site):
        print(f"{options.site} holds no page; build the site first", file=sys.stderr)
        return 1
    reason = missing()
    if reason:
        print(
            f"\n*** THE SITE WAS NOT CHECKED IN A BROWSER: {reason}.\n"
            "*** Formulas, scripts, links, phone width and dark mode are untested here.\n"
            "*** Install Chromium (Debian: apt-get install chromium) and run this again.\n",
            file=sys.stderr,
        )
        return 2 if options.require else 0
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    faults = check(
        options.site, options.pages, options.shots, say=lambda line: print(line, flush=True)
    )
    count = len(options.pages or all_pages(options.site))
    took = time.monotonic() - begin
    said = f"{len(faults) or 'no'} fault(s)"
    print(f"{count} pages, light and dark, 1280 and 390 px: {said}, {took:.0f} s")
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
