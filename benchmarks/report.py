"""The page of 10,000 episodes: its size, the time to write it, and the time to open it in headless Chromium.

Budget: under 20 MB, opened in under 2 s. Opened means from the navigation until the script has run and the browser has
painted twice; the list of all episodes, and a search through them, are timed apart. Needs Chromium and `playwright`.

    python benchmarks/report.py [--episodes 10000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from agents.report.write import write_report

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WORDS = [
    "the",
    "food",
    "was",
    "good",
    "service",
    "we",
    "came",
    "back",
    "great",
    "place",
    "not",
    "staff",
    "very",
    "room",
    "lovely",
    "price",
    "a",
    "with",
    "and",
    "it",
]
NUM_TOKENS = 24
PAINTED = (
    "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)


def write_run(run_dir: Path, num_episodes: int) -> None:
    """Write a run of four episodes an update, with numbers of four digits and the metrics of PPO."""
    draw = random.Random(0)
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(json.dumps({"env_id": "TextGen-v0", "num_episodes": 64 * num_episodes // 4}))
    (run_dir / "final").mkdir()
    names = ("return", "length", "loss/policy", "loss/value", "entropy", "approx_kl", "kl_per_episode", "seconds")
    with (run_dir / "metrics.jsonl").open("w") as metrics, (run_dir / "samples.jsonl").open("w") as samples:
        for update in range(1, num_episodes // 4 + 1):
            numbers = {name: draw.random() for name in names}
            metrics.write(json.dumps({"update": update, **numbers, "episodes": 64 * update}) + "\n")
            for _ in range(4):
                tokens = [f" {draw.choice(WORDS)}" for _ in range(NUM_TOKENS)]
                columns: dict[str, Any] = {"token": tokens}
                for name in ("log_prob", "value", "advantage", "kl"):
                    columns[name] = [round(draw.gauss(0, 1), 3) for _ in tokens]
                line = {"update": update, "prompt": "The food", "response": "".join(tokens), "finish_reason": "length"}
                samples.write(json.dumps({**line, "return": draw.random(), "parts": {}, "tokens": columns}) + "\n")


def opened(page: Page, url: str) -> dict[str, float]:
    """Open the page once, list all episodes, and look for a text; seconds of each."""
    page.goto(url, wait_until="load")
    found = {"open": page.evaluate(PAINTED) / 1000}
    for name, action in (
        ("all", "document.querySelector('#episodes select').value = 'all'"),
        ("search", "document.querySelector('#episodes input[type=search]').value = 'lovely price'"),
    ):
        event = "change" if name == "all" else "input"
        element = "select" if name == "all" else "input[type=search]"
        started = page.evaluate("performance.now()")
        page.evaluate(
            f"() => {{ {action}; document.querySelector('#episodes {element}').dispatchEvent(new Event('{event}')); }}"
        )
        found[name] = (page.evaluate(PAINTED) - started) / 1000
        if name == "all":
            status = page.inner_text("#episodes .status")  # "10,000 of 10,000 episodes"
            found["episodes_in_page"] = int(status.split()[0].replace(",", ""))
    found["elements"] = page.evaluate("document.querySelectorAll('*').length")
    return found


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run_dir = Path(folder) / "run"
        write_run(run_dir, arguments.episodes)
        started = time.process_time()
        path = write_report([run_dir])
        seconds = time.process_time() - started
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        rounds = [opened(browser.new_page(), path.as_uri()) for _ in range(arguments.repeats)]
        browser.close()
        size = path.stat().st_size
    medians = {name: round(statistics.median(row[name] for row in rounds), 3) for name in rounds[0]}
    slowest = round(max(row["open"] for row in rounds), 3)
    result = {
        "episodes_written": arguments.episodes,
        "megabytes": round(size / 1e6, 2),
        "write_cpu_seconds": round(seconds, 2),
    }
    print(json.dumps(result | medians | {"open_slowest": slowest}))


if __name__ == "__main__":
    main()
