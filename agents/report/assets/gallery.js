// The episodes: the first beside the last, or all of them; found by text, return and update.

const PAGE_SIZE = 6;

/** Fill the block of the episodes. */
function gallery(block, page) {
  const { episodes, seeds, step } = page;
  if (!episodes.length) {
    block.append(make("p", {}, "No episodes were kept."));
    return;
  }
  const updates = episodes.map((episode) => episode.update ?? 0).reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const names = [...new Set(episodes.slice(0, 50).flatMap((episode) => episode.columns.map((pair) => pair[0])))];
  const texts = new Map(); // lower-cased when a text is first looked for
  const scales = new Map();
  const wish = { color: names.includes("advantage") ? "advantage" : (names[0] ?? ""), which: updates[0] < updates[1] ? "ends" : "all", text: "", least: null, most: null, order: "update", shown: PAGE_SIZE };
  const list = make("div", { class: "results" });
  const status = make("p", { class: "status", role: "status" });
  const legend = make("div");

  const scale = () => {
    if (!wish.color) return null;
    if (!scales.has(wish.color)) scales.set(wish.color, scaleOf(episodes, wish.color));
    return scales.get(wish.color);
  };
  const textOf = (episode) => {
    if (!texts.has(episode)) texts.set(episode, `${episode.prompt ?? ""}${episode.response ?? ""}`.toLowerCase());
    return texts.get(episode);
  };
  const fits = (episode) =>
    (wish.least === null || (episode.return ?? -Infinity) >= wish.least) &&
    (wish.most === null || (episode.return ?? Infinity) <= wish.most) &&
    (wish.text === "" || textOf(episode).includes(wish.text));
  const orders = {
    update: (a, b) => a.update - b.update,
    latest: (a, b) => b.update - a.update,
    best: (a, b) => (b.return ?? -Infinity) - (a.return ?? -Infinity),
    worst: (a, b) => (a.return ?? Infinity) - (b.return ?? Infinity),
  };
  const label = (episode) => `${step} ${spell(episode.update)}` + (seeds.length > 1 ? `, ${seeds[episode.run]}` : "");
  const cards = (found) => found.slice(0, wish.shown).map((episode) => card(episode, scale(), label(episode)));

  const render = () => {
    legend.replaceChildren(...(scale() ? [scaleLegend(scale())] : []));
    const found = episodes.filter(fits);
    let count;
    if (wish.which === "ends") {
      const sides = [["Before", updates[0]], ["After", updates[1]]].map(([title, update]) => [`${title}: ${step} ${spell(update)}`, found.filter((episode) => episode.update === update)]);
      count = Math.max(...sides.map(([, part]) => part.length));
      status.textContent = sides.map(([title, part]) => `${title}, ${part.length}`).join("; ");
      list.replaceChildren(make("div", { class: "sides" }, ...sides.map(([title, part]) => make("section", {}, make("h3", {}, title), ...(part.length ? cards(part) : [make("p", {}, "None that fit.")])))));
    } else {
      const exact = wish.which === "all" ? found : found.filter((episode) => episode.update === Number(wish.which));
      count = exact.length;
      status.textContent = `${count.toLocaleString("en")} of ${episodes.length.toLocaleString("en")} episodes`;
      list.replaceChildren(make("div", { class: "all" }, ...cards([...exact].sort(orders[wish.order]))));
    }
    if (count > wish.shown) list.append(make("button", { type: "button", class: "more", click: () => {
      wish.shown += PAGE_SIZE;
      render();
    } }, "Show more"));
  };
  const change = (name, read = (value) => value) => (value) => {
    wish[name] = read(value);
    wish.shown = PAGE_SIZE;
    render();
  };
  const number = (value) => (value.trim() === "" || Number.isNaN(Number(value)) ? null : Number(value));
  const input = (type, name, read, attributes = {}) => {
    const node = make("input", { type, ...attributes });
    node.addEventListener("input", () => change(name, read)(node.value));
    return node;
  };
  const colors = make("fieldset", { class: "segments" }, make("legend", {}, "Colour tokens by"));
  for (const name of [...names, ""]) {
    const radio = make("input", { type: "radio", name: "color", value: name, checked: name === wish.color, change: () => change("color")(name) });
    colors.append(make("label", {}, radio, make("span", {}, name === "" ? "nothing" : columnName(name))));
  }
  const distinct = [...new Set(episodes.map((episode) => episode.update))].sort((a, b) => a - b);
  const some = distinct.filter((_, k) => distinct.length <= 200 || k % Math.ceil(distinct.length / 200) === 0);
  const order = field("Order", choice([["update", "as they came"], ["latest", "latest first"], ["best", "highest return first"], ["worst", "lowest return first"]], "update", change("order")));
  order.hidden = wish.which === "ends";
  const which = choice([["ends", "the first beside the last"], ["all", "all"], ...some.map((update) => [String(update), `${step} ${spell(update)}`])], wish.which, (value) => {
    order.hidden = value === "ends";
    change("which")(value);
  });
  block.append(
    make("div", { class: "controls" }, colors),
    make("div", { class: "controls" },
      field("Episodes", which),
      field("Find text", input("search", "text", (value) => value.toLowerCase(), { autocomplete: "off", spellcheck: "false" })),
      field("Return from", input("number", "least", number, { step: "any" })),
      field("to", input("number", "most", number, { step: "any" })),
      order),
    legend, status, list,
  );
  render();
}

/** Held-out problems before and after training, reward beside judge. */
function pairs(block, evaluations) {
  const all = evaluations.flatMap((evaluation) => evaluation.pairs.map((pair) => ({ ...pair, judge: evaluation.judge, run: evaluation.run, problem: `${evaluation.split ?? "unknown"} problem${evaluation.env ? ` of ${evaluation.env}` : ""}` })));
  if (!all.length) return;
  const score = (side, judge) => `reward ${spell(side.return)}` + (judge === null ? "" : ` · ${judge} ${spell(side.judge)}`);
  const one = (pair) => make("article", { class: "pair" },
    make("p", { class: "facts" }, make("span", {}, pair.run), make("span", {}, pair.problem)),
    ...[["before", pair.before], ["after", pair.after]].map(([name, side]) => make("div", {}, make("p", { class: "side" }, make("b", {}, name), ` ${score(side, pair.judge)}`),
      make("p", { class: "text" }, make("span", { class: "prompt" }, pair.prompt ?? ""), make("span", { class: "response" }, side.response ?? "")))));
  const list = make("div", { class: "all" });
  const more = make("button", { type: "button", class: "more", click: () => show() }, "Show more");
  const show = () => {
    all.slice(list.children.length, list.children.length + 4).forEach((pair) => list.append(one(pair)));
    more.hidden = list.children.length >= all.length;
  };
  block.append(make("h3", {}, "The same problems before and after, unselected"), list, more);
  show();
}
