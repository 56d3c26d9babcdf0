// A line chart: responsive, with a slider as the cursor, toggles of its series, and its numbers as a table.

const MARGIN = { top: 26, right: 16, bottom: 40, left: 52 };
const NUM_COLORS = 8;
const MANY = 8; // lines; of more, one at a time can be looked at

/** Classes of the n-th line: a colour, and dashes when those are used up. */
function lookOf(n) {
  return `c${n % NUM_COLORS} d${Math.floor(n / NUM_COLORS)}`;
}

/** Round tick positions that cover low to high. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** The same for a logarithmic axis: 1, 2 and 5 times powers of ten, or the powers alone where those are too many. */
function logTicks(low, high, most) {
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      for (const factor of factors) if (factor * 10 ** power >= low && factor * 10 ** power <= high) found.push(factor * 10 ** power);
    }
    if (found.length && (found.length <= most || factors.length === 1)) return found;
  }
  return [low, high];
}

/** Lowest and highest of numbers, spread a little; null for none. */
function span(values, spread) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  const room = (high - low || Math.abs(high) || 1) * spread;
  return [low - room, high + room];
}

/**
 * Draw a chart into a block and return its figure.
 *
 * spec: title; xName; yName; series: {name, points: [[x, y, low, high]], faint, color}, low and high perhaps null, color the
 * number of a colour, the line's place unless given; range: of y,
 * or null for that of the data; log: whether x is drawn by its logarithm; start: share of x at which it is
 * read first, 1 unless given; parting: whether x begins where the first of the shown lines leaves 1.
 */
function chart(spec) {
  const hidden = new Set();
  const series = spec.series.map((one, k) => ({ ...one, k, look: lookOf(one.color ?? k), points: one.points.filter((point) => point[1] !== null) }));
  const stops = [...new Set(series.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
  const plot = make("div", { class: "plot" });
  const reading = make("output", { class: "reading" });
  const legend = make("div", { class: "legend", role: "group", "aria-label": "Shown lines" });
  const slider = make("input", {
    type: "range", min: 0, max: Math.max(stops.length - 1, 0), step: 1, value: Math.round((spec.start ?? 1) * Math.max(stops.length - 1, 0)),
    "aria-label": `Read ${spec.title} at ${spec.xName}`,
  });
  let state = null;
  const place = spec.log ? (value) => Math.log10(Math.max(value, 1e-9)) : (value) => value;

  const at = (one, x) => {
    let found = null;
    for (const point of one.points) if (point[0] <= x) found = point;
    return found;
  };
  /** A line that has ended is read at its end, and says so. */
  const spellAt = (one, point, x) => spellPoint(point) + (point === one.points.at(-1) && x > point[0] ? ` (ended at ${spell(point[0])})` : "");
  const spellPoint = ([, y, low, high]) => spell(y) + (low === null || low === undefined ? "" : ` [${spell(low)}, ${spell(high)}]`);

  const read = () => {
    const x = stops[Number(slider.value)];
    const shown = series.filter((one) => !hidden.has(one.k)).map((one) => [one, at(one, x)]).filter(([, point]) => point);
    reading.replaceChildren(
      make("b", {}, `${spec.xName} ${spell(x)}`),
      ...shown.map(([one, point]) => make("span", {}, make("i", { class: `key ${one.look}` }), `${one.name} ${spellAt(one, point, x)}`)),
    );
    slider.setAttribute("aria-valuetext", `${spec.xName} ${spell(x)}: ` + shown.map(([one, point]) => `${one.name} ${spellAt(one, point, x)}`).join("; "));
    if (!state) return;
    const cursor = state.x(x);
    for (const part of [state.cursor, state.dots]) part.setAttribute("visibility", cursor < MARGIN.left - 1 ? "hidden" : "visible");
    state.cursor.setAttribute("x1", cursor);
    state.cursor.setAttribute("x2", cursor);
    state.dots.replaceChildren(...shown.map(([one, point]) => draw("circle", { cx: state.x(point[0]), cy: state.y(point[1]), r: 3.5, class: `dot ${one.look}` })));
  };

  const render = () => {
    const width = Math.max(plot.clientWidth, 260);
    const height = Math.round(Math.min(Math.max(width * 0.5, 210), 340));
    const visible = series.filter((one) => !hidden.has(one.k));
    const points = visible.flatMap((one) => one.points);
    const xs = span(points.map((point) => point[0]), 0) ?? [1, 10];
    if (spec.parting) xs[0] = partingOf(visible) ?? xs[0];
    const ys = spec.range ?? yRange(points);
    const [left, right] = xs.map(place);
    const x = (value) => MARGIN.left + ((place(value) - left) / (right - left || 1)) * (width - MARGIN.left - MARGIN.right);
    const y = (value) => height - MARGIN.bottom - ((value - ys[0]) / (ys[1] - ys[0] || 1)) * (height - MARGIN.top - MARGIN.bottom);
    const name = `title-${(ids += 1)}`;
    const clip = `clip-${ids}`;
    const image = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": `${name} ${name}-about` });
    const last = visible.map((one) => one.points.at(-1)).filter(Boolean);
    image.append(
      draw("title", { id: name }, `${spec.title} over ${spec.xName}`),
      draw("desc", { id: `${name}-about` }, `${visible.length} lines; at the end: ` + visible.filter((one) => one.points.length).map((one, k) => `${one.name} ${spellPoint(last[k])}`).join("; ")),
      draw("clipPath", { id: clip }, draw("rect", { x: MARGIN.left, y: MARGIN.top - 6, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom + 6 })),
    );
    for (const tick of ticks(ys[0], ys[1], 5)) {
      image.append(draw("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick), class: "rule" }));
      image.append(draw("text", { x: MARGIN.left - 8, y: y(tick) + 4, class: "tick end" }, spell(tick)));
    }
    for (const tick of (spec.log ? logTicks : ticks)(xs[0], xs[1], Math.max(2, Math.floor(width / 90)))) {
      image.append(draw("line", { x1: x(tick), x2: x(tick), y1: height - MARGIN.bottom, y2: height - MARGIN.bottom + 5, class: "axis" }));
      const edge = x(tick) + spell(tick).length * 3.5 > width; // of digits 7 wide
      image.append(draw("text", { x: edge ? width : x(tick), y: height - MARGIN.bottom + 19, class: `tick ${edge ? "end" : "middle"}` }, spell(tick)));
    }
    image.append(
      draw("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: height - MARGIN.bottom, y2: height - MARGIN.bottom, class: "axis" }),
      draw("text", { x: width - MARGIN.right, y: height - 5, class: "name end" }, spec.log ? `${spec.xName} (logarithmic)` : spec.xName),
      draw("text", { x: 4, y: 13, class: "name" }, spec.yName),
    );
    const lines = draw("g", { "clip-path": `url(#${clip})` });
    for (const one of [...visible].sort((a, b) => Number(b.faint ?? false) - Number(a.faint ?? false))) {
      const color = one.look;
      const group = draw("g", { "data-line": one.k });
      lines.append(group);
      const band = one.points.filter((point) => point[2] !== null && point[2] !== undefined);
      if (band.length > 1) group.append(draw("path", { class: `band ${color}`, d: path([...band.map((p) => [x(p[0]), y(p[3])]), ...band.reverse().map((p) => [x(p[0]), y(p[2])])]) + "Z" }));
      group.append(draw("path", { class: `line ${color}${one.faint ? " faint" : ""}`, d: path(one.points.map((p) => [x(p[0]), y(p[1])])) }));
      if (one.points.length === 1) group.append(draw("circle", { class: `dot ${color}`, cx: x(one.points[0][0]), cy: y(one.points[0][1]), r: 3 }));
    }
    const cursor = draw("line", { class: "cursor", y1: MARGIN.top - 6, y2: height - MARGIN.bottom });
    const dots = draw("g");
    image.append(lines, cursor, dots);
    image.addEventListener("pointermove", (event) => {
      const pointed = left + ((event.offsetX - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (right - left);
      slider.value = nearest(stops.map(place), pointed);
      read();
    });
    plot.replaceChildren(image);
    state = { x, y, cursor, dots };
    read();
  };

  /** Let one line stand out, or none. */
  const single = (k) => plot.querySelectorAll("g[data-line]").forEach((group) => group.classList.toggle("dim", k !== null && group.dataset.line !== String(k)));
  const buttons = (series.length > 1 ? series : []).map((one) => {
    const button = make("button", {
      type: "button",
      click: () => {
        if (!hidden.delete(one.k)) hidden.add(one.k);
        change();
      },
      pointerenter: (event) => event.pointerType === "mouse" && single(one.k),
      pointerleave: () => single(null),
      focus: () => button.matches(":focus-visible") && single(one.k),
      blur: () => single(null),
    }, make("i", { class: `key ${one.look}` }), one.name);
    return button;
  });
  const all = make("button", { type: "button", class: "all-lines", click: () => {
    if (hidden.size) hidden.clear();
    else series.forEach((one) => hidden.add(one.k));
    change();
  } });
  const change = () => {
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(!hidden.has(k))));
    all.textContent = hidden.size ? "Show all" : "Hide all";
    if (state) render();
  };
  legend.append(...buttons, ...(buttons.length > MANY ? [all] : []));
  change();
  slider.addEventListener("input", read);
  const table = disclosure("Numbers as a table", () =>
    grid(`${spec.title} over ${spec.xName}`, [spec.xName, ...series.map((one) => one.name)], stops.map((stop) => [stop, ...series.map((one) => {
      const point = one.points.find((found) => found[0] === stop);
      return point ? spellPoint(point) : "–";
    })])));
  const figure = make("figure", { class: "chart" }, legend, plot, slider, reading, table);
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width) {
      width = plot.clientWidth;
      render();
    }
  }).observe(plot);
  return figure;
}

/** The last x at which all lines are still 1; null for none. */
function partingOf(visible) {
  const left = visible.map((one) => one.points[Math.max(one.points.findIndex((point) => point[1] < 1) - 1, 0)]?.[0]).filter((x) => x !== undefined);
  return left.length ? Math.min(...left) : null;
}

/** Range of y: of the lines, and of their bands as far as they do not dwarf the lines. */
function yRange(points) {
  const lines = span(points.map((point) => point[1]), 0.06) ?? [0, 1];
  const bands = span(points.flatMap((point) => (point[2] === null || point[2] === undefined ? [] : [point[2], point[3]])), 0.02) ?? lines;
  const room = (lines[1] - lines[0]) * 0.6;
  return [Math.max(Math.min(lines[0], bands[0]), lines[0] - room), Math.min(Math.max(lines[1], bands[1]), lines[1] + room)];
}

function path(points) {
  return points.map(([x, y], k) => `${k === 0 ? "M" : "L"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
}

/** Position of the number nearest to a value. */
function nearest(sorted, value) {
  let best = 0;
  sorted.forEach((number, k) => {
    if (Math.abs(number - value) < Math.abs(sorted[best] - value)) best = k;
  });
  return best;
}
