"""Take the screenshots of docs/screenshots: of runs on desktop and phone, light and dark, and of a benchmark.

    python docs/screenshots.py runs/demo-0 runs/demo-1 runs/demo-2
    python docs/screenshots.py benchmarks/toy_suite

Needs Chromium and `playwright`; colours are reduced to 256, so that a picture stays small.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from agents.report.page import render
from agents.report.write import gather

OUT = Path(__file__).parent / "screenshots"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
#: kind of page: name: (width, height, colour scheme, section at the top)
SHOTS = {
    "run": {
        "desktop-light": (1200, 1500, "light", None),
        "desktop-dark": (1200, 1500, "dark", "evaluation"),
        "phone-light": (390, 1300, "light", None),
        "phone-dark": (390, 1300, "dark", "episodes"),
    },
    "benchmark": {"benchmark-light": (1200, 2780, "light", None)},
}


def main() -> None:
    """Take all of them."""
    data = gather([Path(argument) for argument in sys.argv[1:]])
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder).resolve() / "report.html"
        report.write_text(render(data), encoding="utf-8")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, (width, height, scheme, section) in SHOTS[data["kind"]].items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(report.as_uri())
            if section is not None:
                page.evaluate(f"document.getElementById({section!r}).scrollIntoView({{ behavior: 'instant' }})")
            page.wait_for_timeout(500)
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            path = OUT / f"{name}.png"
            image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
