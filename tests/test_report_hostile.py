"""The report in a real browser: hostile text stays text in every place where a page shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hostile_texts import PAYLOADS
from report_runs import benchmark_row, episode, metrics, write_run
from watched_pages import OPEN_ALL, Watched

from agents.benchmark.results import job_folder, key_of, write_job
from agents.report.records import visible
from agents.report.write import write_report

SHOWN = [visible(payload) for payload in PAYLOADS]


# The name of the vertical axis when each metric is chosen.
CHOOSE_METRICS = """async (names) => {
  const slot = document.querySelectorAll(".slot")[1];
  const select = slot.querySelector("select");
  const found = [];
  for (const name of names) {
    select.value = name;
    select.dispatchEvent(new Event("change"));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    found.push([...slot.querySelectorAll("svg .name")].at(-1).textContent);
  }
  return found;
}"""


def hostile_run(run_dir: Path, k: int) -> Path:
    """A run in which payload k stands wherever only one text can; the first holds all of them everywhere else."""
    text = PAYLOADS[k]
    config: dict[str, Any] = {"env_id": text, "seed": text, "model": text, "algorithm": {"baseline": text}}
    samples = [episode(1, text, [text, "b"], 0.5, finish_reason=text, parts={text: 0.25})]
    environment = {"cpu": text}
    lines = metrics(2)
    if k == 0:
        config |= {"env_kwargs": {payload: payload for payload in PAYLOADS}}
        environment |= dict.fromkeys(PAYLOADS, "1")
        for line in lines:
            line |= {f"part/{payload}": 0.5 for payload in PAYLOADS} | dict.fromkeys(PAYLOADS, 1.0)
    side = {"response": text, "return": 0.5, "judge": 0.5}
    evaluation = {
        "split": text,
        "judge_name": text,
        "env": {"id": text},
        "warnings": [text],
        "gain": {"judge": 0.1, "judge_stderr": 0.01},
        "start": {text: 0.5, "judge": 0.5},
        text: 0.5,
        "pairs": [{"prompt": text, "before": side, "after": side}],
    }
    columns = samples[0]["tokens"]
    columns[text] = [0.5, -0.5]
    return write_run(
        run_dir, config=config, lines=lines, samples=samples, evaluation=evaluation, environment=environment
    )


def test_hostile_text_stays_text(browser: Any, tmp_path: Path) -> None:
    """A hundred payloads through every place where a run's page shows what somebody else wrote."""
    runs = [hostile_run(tmp_path / "runs" / str(k), k) for k in range(len(PAYLOADS))]
    path = write_report(runs, tmp_path / "report.html")
    watched = Watched(browser)
    page = watched.open(path)
    page.evaluate(OPEN_ALL)
    page.wait_for_timeout(300)
    seeds = [visible(f"seed {payload}") for payload in PAYLOADS]
    sinks = {
        "prompt": (".episode .prompt", SHOWN),
        "response": (".pair .response", [text for text in SHOWN for _ in range(2)]),
        "token": (".token:first-child", SHOWN),
        "token that is read": (".episode output b", [f"token 1 of 2: “{text}”" for text in SHOWN]),
        "token in the table": (".episode tbody tr:first-child th", SHOWN),
        "name of a token's number": (".episode thead th:last-child", SHOWN),
        "reason of the end": (".episode .facts span:nth-child(3)", [f"end: {text}" for text in SHOWN]),
        "part of the reward": (".episode .facts span:nth-child(4)", [f"{text} 0.25" for text in SHOWN]),
        "seed of an episode": (".episode .facts span:nth-child(2)", [f"update 1, {text}" for text in seeds]),
        "prompt of a pair": (".pair .prompt", [text for text in SHOWN for _ in range(2)]),
        "judge": ("#evaluation > .scroll td:nth-child(2)", [visible(f"judge: {payload}") for payload in PAYLOADS]),
        "env and problems": ("#evaluation > .scroll td:last-child", [f"{text}, {text}" for text in SHOWN]),
        "warning": (".warning", [f"{seed}: {text}" for seed, text in zip(seeds, SHOWN, strict=True)]),
        "evaluated metric": ("#evaluation details tbody th", SHOWN),
        "evaluated run": ("#evaluation > .scroll tbody th", seeds),
        "seed of a check": ("#checks thead th:nth-child(n+4)", seeds),
        "seed in a legend": (".slot:first-child .legend button:nth-child(n+2)", seeds),
        "setting's name": ("#configuration tbody th", [visible(f"env_kwargs.{payload}") for payload in PAYLOADS]),
        "setting's value": ("#configuration tr.differs:first-child td span:not(.or)", SHOWN),
        "metric": (".slot:first-child select option", SHOWN),
        "part among the metrics": (".slot:first-child select option", [visible(f"part/{p}") for p in PAYLOADS]),
        "machine": ("#configuration > div > div:last-child tr:first-child td span:not(.or)", SHOWN),
    }
    num_compared = 0
    for name, (selector, expected) in sinks.items():
        found = watched.texts(selector)
        missing = [text for text in expected if text not in found]
        assert not missing, f"{name}: {missing[0][:80]!r} not among {found[:3]!r:.300}"
        num_compared += len(expected)
    assert page.title() == f"{visible(', '.join(PAYLOADS))} · textenvs"
    watched.assert_quiet(path)
    print(f"{len(PAYLOADS)} payloads, {len(sinks)} places, {num_compared:,} texts compared: no dialog, no request")


def test_metrics_with_hostile_names_are_drawn(browser: Any, tmp_path: Path) -> None:
    path = write_report([hostile_run(tmp_path / "run", 0)])
    watched = Watched(browser)
    assert watched.open(path).evaluate(CHOOSE_METRICS, SHOWN) == SHOWN
    watched.assert_quiet(path)


def test_hostile_results_of_a_benchmark_stay_text(browser: Any, tmp_path: Path) -> None:
    """The payloads as agent, library, environment and its settings, error, commit, machine and versions."""
    out = tmp_path / "out"
    for k, text in enumerate(PAYLOADS):
        more = {"library": text, "commit": text, "machine": text, "versions": {text: text}, "suite": PAYLOADS[0]}
        name = text.encode("utf-8", "replace").decode()  # no folder can be called after half a character
        done = benchmark_row(name, name, 0, 0.5, env_kwargs={text: text}, **more)
        failed = benchmark_row(name, "Other-v0", k, 0, **more)
        failed |= {"status": "failed", "error": text, "score": None, "final_return": None}
        for row in (done, failed):
            write_job(job_folder(out, key_of(row)), row, [(100, 1.0, 0.2), (200, 2.0, 0.5)])
    path = write_report([out])
    watched = Watched(browser)
    watched.open(path).evaluate(OPEN_ALL)
    watched.page.wait_for_timeout(200)
    raw = [payload.encode("utf-8", "replace").decode() for payload in PAYLOADS]
    names = [visible(name) for name in raw]
    sinks = {
        "agent": ("#scores tbody th", names),
        "library": ("#scores td:nth-child(8)", SHOWN),
        "agent in an environment": ("#environments td:nth-child(2)", names),
        "environment": ("#environments tbody th", names),
        "error": ("#failures td:last-child", SHOWN),
        "agent that failed": ("#failures tbody th", names),
        "commit": ("#sources td:nth-child(2)", SHOWN),
        "machine": ("#sources td:nth-child(3)", SHOWN),
        "versions": ("#sources td:nth-child(4)", [visible(f"{payload} {payload}") for payload in PAYLOADS]),
        "line of a profile": (".profile .legend button", names),
        "mark": (
            ".marks li",
            [visible(f"{p}: no score in some environments, so its mean is over fewer") for p in raw],
        ),
        "choice of an environment": (".growth option", names),
    }
    for name, (selector, expected) in sinks.items():
        found = watched.texts(selector)
        missing = [text for text in expected if text not in found]
        assert not missing, f"{name}: {missing[0][:80]!r} not among {found[:3]!r:.300}"
    assert watched.texts("h1") == [f"Benchmark {SHOWN[0]}"]
    watched.assert_quiet(path)
    print(f"{len(PAYLOADS)} payloads, {len(sinks)} places: no dialog, no request")


def test_names_of_directories_stay_text(browser: Any, tmp_path: Path) -> None:
    """Where no configuration names a run, its directory does."""
    names = [payload for payload in PAYLOADS if "/" not in payload and "\0" not in payload and payload.isprintable()]
    assert len(names) > 25
    runs = [write_run(tmp_path / name, config={}) for name in names]
    path = write_report(runs, tmp_path / "report.html")
    watched = Watched(browser)
    watched.open(path)
    assert watched.texts("#checks thead th:nth-child(n+4)") == names
    assert watched.texts("h1") == [", ".join(names)]
    watched.assert_quiet(path)


def test_the_watch_sees_what_it_guards_against(browser: Any, tmp_path: Path) -> None:
    """The same eyes on a page without the report's defences: dialogs, requests, elements and refusals are noticed."""
    path = tmp_path / "careless.html"
    path.write_text("<!doctype html><meta charset=utf-8><body>" + "".join(PAYLOADS[:30]), errors="replace")
    watched = Watched(browser)
    watched.open(path)
    assert watched.dialogs
    assert [url for url in watched.requests if "evil.example" in url]
    report = write_report([write_run(tmp_path / "run")])
    html = report.read_text(encoding="utf-8").replace(
        "<main", "<img src=x onerror=alert(1)><script>alert(2)</script><main"
    )
    report.write_text(html, encoding="utf-8")
    watched = Watched(browser)
    watched.open(report)
    assert not watched.dialogs, "the policy must refuse what stands in the page"
    assert sum("Content Security Policy" in message for message in watched.messages) >= 2
