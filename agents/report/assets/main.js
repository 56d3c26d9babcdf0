// Puts the page together from its data.

const DEFAULTS = ["kl_per_episode", "success_rate", "entropy", "check/explained_variance", "length", "loss", "grad_norm"];
const NUM_CHARTS = 4;

/** The curves of runs: the first metric large, some others beside each other, each with its own choice. */
function runCharts(block, { curves, seeds }) {
  const byName = new Map(curves.metrics.map((metric) => [metric.name, metric]));
  const names = [...byName.keys()];
  const chosen = [names[0], ...DEFAULTS.filter((name) => byName.has(name) && name !== names[0])].slice(0, NUM_CHARTS);
  let axis = curves.x[0][0][0];
  const axisOf = (k) => curves.x[k].find((pair) => pair[0] === axis)?.[1] ?? [];
  const build = (name) => {
    const metric = byName.get(name);
    const series = metric.runs.map((values, k) => ({ name: seeds[k], faint: seeds.length > 1, points: axisOf(k).map((x, i) => [x, values[i], null, null]) }));
    if (metric.mean) {
      const xs = metric.mean.map((_, i) => seeds.reduce((sum, _seed, k) => sum + axisOf(k)[i], 0) / seeds.length);
      series.unshift({ name: "mean", points: metric.mean.map((y, i) => [xs[i], y, metric.half[i] === null ? null : y - metric.half[i], metric.half[i] === null ? null : y + metric.half[i]]) });
    }
    return chart({ title: name, xName: axis, yName: name, series });
  };
  const charts = make("div", { class: "figures" });
  const slots = chosen.map((name, k) => {
    const slot = make("div", { class: k === 0 ? "slot wide" : "slot" });
    const place = make("div");
    let current = name;
    const redraw = () => place.replaceChildren(build(current));
    slot.append(field("Metric", choice(names.map((other) => [other, other]), name, (value) => {
      current = value;
      redraw();
    })), place);
    charts.append(slot);
    redraw();
    return redraw;
  });
  const axes = curves.x[0].map(([name]) => [name, name]);
  block.append(make("div", { class: "controls" }, field("Horizontal axis", choice(axes, axis, (value) => {
    axis = value;
    slots.forEach((redraw) => redraw());
  }))), charts);
}

/** The curves of a benchmark: the profile, and growth over episodes and over seconds, of all or of one environment. */
function benchmarkCharts({ profiles, growth, agents }) {
  const places = new Map(agents.map(({ agent }, k) => [agent, k])); // an agent has one colour in all charts
  const colored = (series) => series.map((one) => ({ ...one, color: places.get(one.name) }));
  if (profiles.length) document.querySelector(".profile").append(chart({ title: "performance profile", xName: "score", yName: "share of runs above", series: colored(profiles), range: [0, 1.03], start: 0.5, parting: true }));
  if (!growth.length) return;
  const block = document.querySelector(".growth");
  const figures = make("div", { class: "figures two" });
  const render = (k) => figures.replaceChildren(...growth[k][1].map(([axis, series]) =>
    make("div", { class: "slot" }, chart({ title: "IQM of scores", xName: axis, yName: "IQM of normalised training return", series: colored(series), log: true }))));
  block.append(make("div", { class: "controls" }, field("Environment", choice(growth.map(([name], k) => [String(k), name]), "0", (k) => render(Number(k))))), figures);
  render(0);
}

/** Links to the sections, in their order. */
function navigation() {
  const nav = document.querySelector("nav");
  for (const section of document.querySelectorAll("main > section")) nav.append(make("a", { href: `#${section.id}` }, section.dataset.title));
}

const page = JSON.parse(document.getElementById("data").textContent);
navigation();
document.querySelectorAll("table.sortable").forEach((table) => {
  sortable(table);
  filterable(table);
});
if (page.kind === "run") {
  runCharts(document.querySelector(".charts"), page);
  gallery(document.querySelector(".gallery"), page);
  const block = document.querySelector(".pairs");
  if (block) pairs(block, page.evaluations);
} else {
  benchmarkCharts(page);
}
