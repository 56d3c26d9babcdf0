"""Take the screenshots of docs/screenshots from a report: desktop and phone, light and dark.

    textenvs report runs/demo-0 runs/demo-1 runs/demo-2 --out report.html && python docs/screenshots.py report.html

Needs Chromium and `playwright`; colours are reduced to 256, so that a picture stays small.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "screenshots"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
#: name: (width, height, colour scheme, section at the top)
SHOTS = {
    "desktop-light": (1200, 1500, "light", None),
    "desktop-dark": (1200, 1500, "dark", "evaluation"),
    "phone-light": (390, 1300, "light", None),
    "phone-dark": (390, 1300, "dark", "episodes"),
}


def main() -> None:
    """Take all of them."""
    report = Path(sys.argv[1]).resolve()
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, (width, height, scheme, section) in SHOTS.items():
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
