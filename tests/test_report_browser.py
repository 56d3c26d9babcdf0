"""The report in a real browser: it is drawn as the numbers say, and works by pointer and keyboard, on every screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_runs import benchmark_row, episode, metrics, write_benchmark, write_run
from watched_pages import OPEN_ALL, Watched

from agents.report.write import write_report


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three seeds with an evaluation."""
    folder = tmp_path_factory.mktemp("seeds")
    side = {"response": "fine", "return": 0.5, "judge": 0.5}
    evaluation = {"split": "heldout", "judge_name": "vader", "start": {"mean_return": 0.5, "stderr": 0.01}}
    evaluation["pairs"] = [{"prompt": "It was ", "before": side, "after": side}]
    for k in range(3):
        config = {"env_id": "TextGen-v0", "seed": k, "algorithm": {"baseline": "critic"}, "model": "tiny"}
        write_run(
            folder / str(k),
            config=config,
            lines=metrics(20, seed=k),
            evaluation=evaluation,
            environment={"git_commit": str(k)},
        )
    return write_report([folder])


def test_a_page_without_lines_draws_none_and_says_nothing_is_wrong(browser: Any, tmp_path: Path) -> None:
    """Where nobody learnt, where nothing ended well, and where the reader hides every line of a logarithmic chart."""
    rows = [benchmark_row(f"agent{k}", "textenvs/Copy-v0", 0, 0.1 * k) for k in range(9)]
    failed = {"status": "failed", "error": "it broke", "score": None, "final_return": None}
    pages = {
        "idle": ([row | {"episodes": 0} for row in rows], 1),
        "failed": ([row | failed for row in rows], 0),
        "learnt": (rows, 3),
    }
    for name, (kept, num_charts) in pages.items():
        watched = Watched(browser)
        html = write_report([write_benchmark(tmp_path / name, kept)])
        page = watched.open(html)
        assert page.locator("figure.chart svg").count() == num_charts
        for button in page.locator("button.all-lines").all():
            button.click()
        assert page.locator("svg path.line").count() == 0
        watched.assert_quiet(html)


# The heights of the thick line's points, by the ticks beside them.
DRAWN = """() => {
  const svg = document.querySelector(".slot svg");
  const ticks = [...svg.querySelectorAll(".tick.end")].map((t) => [Number(t.textContent), t.getAttribute("y") - 4]);
  const [[a, top], [b, bottom]] = [ticks[0], ticks.at(-1)];
  return [...svg.querySelectorAll("path.line:not(.faint)")].map((line) =>
    line.getAttribute("d").slice(1).split("L").map((p) => a + ((b - a) * (p.split(",")[1] - top)) / (bottom - top)));
}"""


def test_curves_are_drawn_as_the_numbers_say(browser: Any, seeds: Path) -> None:
    """The drawn line, turned back into numbers by the drawn ticks, is the mean."""
    watched = Watched(browser)
    page = watched.open(seeds)
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == 1
    assert drawn[0] == pytest.approx([0.11 + 0.02 * k for k in range(1, 21)], abs=0.003)
    assert page.locator(".slot").first.locator("path.band").count() == 1
    watched.assert_quiet(seeds)


def test_a_chart_is_read_by_keyboard(browser: Any, seeds: Path) -> None:
    page = Watched(browser).open(seeds)
    slot = page.locator(".slot").first
    slider = slot.locator("input[type=range]")
    slider.focus()
    assert "episodes 1,280: mean 0.51" in str(slider.get_attribute("aria-valuetext"))
    page.keyboard.press("Home")
    assert "episodes 64: mean 0.13 [" in str(slider.get_attribute("aria-valuetext"))
    page.keyboard.press("ArrowRight")
    assert "episodes 128" in slot.locator(".reading").first.text_content()
    toggle = slot.locator(".legend button").nth(1)
    toggle.focus()
    page.keyboard.press("Enter")
    assert toggle.get_attribute("aria-pressed") == "false"
    assert slot.locator("path.line.faint").count() == 2
    slot.locator("summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert slot.locator("table tbody tr").count() == 20
    assert slot.locator("svg").get_attribute("role") == "img"
    title, about = str(slot.locator("svg").get_attribute("aria-labelledby")).split()
    assert page.locator(f"#{title}").text_content() == "return over episodes"
    assert "mean 0.51" in page.locator(f"#{about}").text_content()


# Of what has the focus: element, name, whether a ring shows it, and how far down it stands.
FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const ring = [e, e.nextElementSibling].filter(Boolean).map((x) => getComputedStyle(x))
    .some((style) => parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none");
  const name = e.getAttribute("aria-label") ?? e.labels?.[0]?.textContent ?? e.textContent;
  return [e.localName, name.trim(), ring, e.className === "skip" ? 0 : e.getBoundingClientRect().top + scrollY];
}"""


def test_the_keyboard_reaches_everything_in_the_order_it_stands_in(browser: Any, seeds: Path) -> None:
    """Tab goes down the page, everything that can be used has a name, and the focus can be seen."""
    page = Watched(browser).open(seeds)
    stops = []
    for _ in range(200):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None:
            break
        stops.append(stop)
    assert len(stops) > 30
    assert stops[0][1] == "Skip to the content"
    assert all(name for _, name, _, _ in stops), [stop for stop in stops if not stop[1]]
    assert all(ring for _, _, ring, _ in stops), [stop for stop in stops if not stop[2]]
    tops = [top for *_, top in stops]
    assert {"select", "button", "input", "summary", "a", "span"} <= {tag for tag, *_ in stops}
    # Neighbours in a row differ by little; the charts and the two sides of the gallery stand beside each other.
    assert tops[0] < tops[-1]
    assert tops.index(max(tops)) > len(tops) * 0.8


def test_episodes_are_found_and_coloured(browser: Any, seeds: Path) -> None:
    watched = Watched(browser)
    page = watched.open(seeds)
    assert watched.texts(".sides h3") == ["Before: update 1", "After: update 20"]
    assert page.locator(".episode").count() == 12
    page.get_by_label("Episodes", exact=True).select_option("all")
    status = page.locator("#episodes .status")
    assert status.text_content() == "36 of 36 episodes"
    page.get_by_label("Find text").fill("PROMPT 10.2")
    assert status.text_content() == "3 of 36 episodes"
    assert set(watched.texts(".episode .prompt")) == {"prompt 10.2 "}
    page.get_by_label("Find text").fill("")
    page.get_by_label("Return from").fill("0.15")
    page.get_by_label("to", exact=True).fill("0.25")
    assert status.text_content() == "9 of 36 episodes"
    page.get_by_label("Return from").fill("")
    page.get_by_label("to", exact=True).fill("")
    page.get_by_label("Order").select_option("best")
    assert watched.texts(".episode .return")[0] == "return 0.3"
    assert "advantage" in page.locator(".scale").text_content()
    page.get_by_label("log-prob").check()
    first = page.locator(".token").first
    share = "(e) => [e.className, e.style.getPropertyValue('--share')]"
    assert first.evaluate(share)[0] == "token high"  # a log-prob of 0 is as high as it gets
    assert page.locator(".token").nth(2).evaluate(share) == ["token low", "1.000"]
    page.get_by_label("nothing").check()
    assert first.evaluate(share)[0] == "token"
    tokens = page.locator(".tokens").first
    tokens.focus()
    page.keyboard.press("End")
    reading = page.locator(".episode output").first
    assert "token 3 of 3: “<eos>”" in reading.text_content()
    assert "advantage −0.22" in reading.text_content()
    page.keyboard.press("ArrowLeft")
    assert "token 2 of 3" in reading.text_content()
    watched.assert_quiet(seeds)


def test_an_outlier_does_not_pale_the_other_tokens(browser: Any, tmp_path: Path) -> None:
    samples = [episode(1 + k // 5, "prompt", ["t"] * 20, 0.5) for k in range(10)]
    for sample in samples:
        sample["tokens"]["advantage"] = [1.0, -1.0] * 10
    samples[3]["tokens"]["advantage"][4] = 100.0
    watched = Watched(browser)
    page = watched.open(write_report([write_run(tmp_path / "run", samples=samples)]))
    assert watched.texts(".scale b") == ["−1", "1"]
    share = "(e) => [e.className, e.style.getPropertyValue('--share')]"
    assert page.locator(".token").nth(1).evaluate(share) == ["token low", "1.000"]


TEXT = ("h1", "h2", "h3", "p", "li", "a", "b", "label", "legend", "button", "select", "summary", "th", "td", "code")
TEXT += (
    ".verdict",
    ".error",
    ".token",
    ".prompt",
    ".facts",
    "input[type=search]",
    "input[type=number]",
    ".kind",
    "footer p",
)
LUMINANCE = """(selectors) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color, under) => {
    canvas.fillStyle = `rgb(${under.join(",")})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => {
    const [r, g, b] = color.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (element) => {
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(e);
    return chain.reduce((under, e) => rgb(getComputedStyle(e).backgroundColor, under), [255, 255, 255]);
  };
  return selectors.map(([selector, property]) => {
    const ratios = [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).map((e) => {
      const under = property === "color" ? back(e) : back(e.closest("figure"));
      const [a, b] = [light(rgb(getComputedStyle(e)[property], under)), light(under)];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
    return [selector, ratios.length, Math.min(...ratios)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_keeps_to_wcag_aa(browser: Any, seeds: Path, scheme: str) -> None:
    """Text 4.5 to 1 on what is behind it, tokens at the ends of the colours too; lines and borders 3 to 1."""
    page = Watched(browser, color_scheme=scheme).open(seeds)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.get_by_label("log-prob").check()
    page.wait_for_timeout(100)
    ratios = page.evaluate(LUMINANCE, [[selector, "color"] for selector in TEXT])
    assert {name: ratio for name, count, ratio in ratios if not count or ratio < 4.5} == {}
    ratios = page.evaluate(LUMINANCE, [[".line:not(.faint)", "stroke"], [".axis", "stroke"], ["svg text", "fill"]])
    assert {name: ratio for name, count, ratio in ratios if not count or ratio < 3} == {}


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Any, seeds: Path, width: int) -> None:
    page = Watched(browser, viewport={"width": width, "height": 800}).open(seeds)
    page.evaluate(OPEN_ALL)
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    sizes = page.evaluate("[...document.querySelectorAll('svg text')].map((e) => e.getBoundingClientRect().height)")
    assert min(sizes) >= 12, "text in a chart must not shrink with the screen"


def test_a_long_run_draws_no_more_than_a_short_one(browser: Any, tmp_path: Path) -> None:
    """What stands in the page when it opens does not grow with the run; benchmarks/report.py measures 10,000."""
    counts = []
    for num_updates in (25, 250):
        samples = [episode(k, "The food was", [" good"] * 24, 0.5) for k in range(num_updates) for _ in range(4)]
        path = write_report([write_run(tmp_path / str(num_updates), lines=metrics(num_updates), samples=samples)])
        page = Watched(browser).open(path)
        counts.append(page.evaluate("document.querySelectorAll('*').length"))
        page.get_by_label("Episodes", exact=True).select_option("all")
        found = f"{4 * num_updates:,} of {4 * num_updates:,} episodes"
        assert page.locator("#episodes .status").text_content() == found
    assert counts[1] <= counts[0] + 200  # the choice of an update has at most 200 lines
    assert counts[1] < 1_500


def test_numbers_are_sorted_as_numbers(browser: Any, tmp_path: Path) -> None:
    sizes = {"two": 2, "nine": 9, "ten": 10}
    rows = [benchmark_row(name, "textenvs/Copy-v0", k, 0.5) for name, size in sizes.items() for k in range(size)]
    watched = Watched(browser)
    page = watched.open(write_report([write_benchmark(tmp_path / "out", rows)]))
    page.locator("#scores thead th").filter(has_text="jobs").locator("button").click()
    assert watched.texts("#scores tbody th") == ["ten", "nine", "two"]


def test_of_many_lines_one_can_be_looked_at(browser: Any, tmp_path: Path) -> None:
    """Ten agents: the one whose button is pointed at stands out; all go and come back at once; the scale follows."""
    rows = [benchmark_row(f"agent-{n}", "textenvs/Copy-v0", k, 0.1 * n + 0.01 * k) for n in range(10) for k in range(3)]
    for row in rows:
        row["score"] = min(row["score"], 1.0)
    path = write_report([write_benchmark(tmp_path / "out", rows)])
    watched = Watched(browser)
    page = watched.open(path)
    profile = page.locator(".profile")
    buttons = profile.locator(".legend button")
    assert watched.texts(".profile .legend button")[0::10] == ["agent-9", "Hide all"]
    lines = lambda: profile.locator("path.line").count()  # noqa: E731
    first_tick = lambda: float(profile.locator("svg text.tick.middle").first.text_content())  # noqa: E731
    assert (lines(), first_tick()) == (10, 0)
    buttons.nth(3).hover()
    assert profile.locator("g.dim").count() == 9
    page.mouse.move(0, 0)
    assert profile.locator("g.dim").count() == 0
    buttons.last.click()
    assert lines() == 0
    assert watched.texts(".profile .legend button")[-1] == "Show all"
    assert {buttons.nth(k).get_attribute("aria-pressed") for k in range(10)} == {"false"}
    buttons.nth(0).click()
    buttons.nth(1).click()  # with scores of 0.8 and 0.9 or more nothing happens below 0.8
    assert lines() == 2
    assert 0.75 < first_tick() <= 0.85
    buttons.last.click()
    assert lines() == 10
    assert page.locator(".growth .slot").first.locator("svg .name").first.text_content() == "episodes (logarithmic)"
    watched.assert_quiet(path)


def test_a_line_that_has_ended_is_read_at_its_end(browser: Any, tmp_path: Path) -> None:
    rows = [benchmark_row(name, "textenvs/Copy-v0", k, 0.95) for name in ("a", "b") for k in range(3)]
    out = write_benchmark(tmp_path / "out", rows)
    curves = (out / "curves.csv").read_text().splitlines()
    kept = [line for line in curves if not (line.startswith("b,") and int(line.split(",")[3]) > 2000)]
    (out / "curves.csv").write_text("\n".join(kept) + "\n")
    page = Watched(browser).open(write_report([out]))
    reading = page.locator(".growth .reading").first.text_content()
    assert "(ended at 2,000)" in reading.split("b ")[1]
    assert "ended" not in reading.split("b ")[0]


def test_tables_are_sorted_and_filtered_by_keyboard(browser: Any, tmp_path: Path) -> None:
    scores = {"b": 0.95, "a": 0.5, "c": 0.7}
    rows = [benchmark_row(name, "textenvs/Copy-v0", k, scores[name] + 0.01 * k) for name in scores for k in range(3)]
    rows += [benchmark_row(name, "textenvs/Sort-v0", k, scores[name]) for name in scores for k in range(3)]
    rows.append(benchmark_row("random", "textenvs/Copy-v0", 0, 0.0, episodes=0, seconds=0.0))
    path = write_report([write_benchmark(tmp_path / "out", rows)])
    watched = Watched(browser)
    page = watched.open(path)
    agents = lambda: watched.texts("#scores tbody th")  # noqa: E731
    heads = page.locator("#scores thead th")
    assert agents() == ["b", "c", "a", "random"]
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    heads.nth(0).locator("button").focus()
    page.keyboard.press("Enter")
    assert agents() == ["a", "b", "c", "random"]
    assert [heads.nth(k).get_attribute("aria-sort") for k in range(2)] == ["ascending", None]
    page.keyboard.press("Space")
    assert agents() == ["random", "c", "b", "a"]
    for press in range(2):  # what has no median comes last either way
        heads.nth(4).locator("button").press("Enter")
        assert agents()[0] == "b", press
    page.locator("#environments").get_by_label("Show rows with").fill("SORT b")
    assert page.locator("#environments tbody tr:not([hidden])").count() == 1
    assert page.locator("#environments .status").text_content() == "1 of 7 rows"
    page.get_by_label("Environment", exact=True).select_option(label="textenvs/Copy-v0")
    assert page.locator(".growth .legend").first.locator("button").count() == 3
    assert watched.texts(".profile .legend button") == ["b", "c", "a", "random"]
    keys = "(all) => all.map((key) => key.className)"
    colours = page.eval_on_selector_all(".profile .legend .key", keys)
    assert len(set(colours)) == 4
    # A colour says who it is, whoever else is drawn.
    assert page.eval_on_selector_all(".growth .slot:first-child .legend .key", keys) == colours[:3]
    watched.assert_quiet(path)
