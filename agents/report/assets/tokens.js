// One episode: its response token by token, coloured by a number of the reader's choice.

const FIRST_TOKENS = 120; // drawn at once; the rest when it is asked for
const UNITS = { log_prob: "nats", value: "reward", advantage: "as in the loss", kl: "nats" };
const NAMES = { log_prob: "log-prob", value: "value", advantage: "advantage", kl: "KL" };

function columnName(name) {
  return Object.hasOwn(NAMES, name) ? NAMES[name] : name;
}

/** Values of a named column of an episode, or null. */
function column(episode, name) {
  return episode.columns.find((pair) => pair[0] === name)?.[1] ?? null;
}

/**
 * Colours of a column, spread so that one token in fifty is beyond the ends: an outlier must not pale all others.
 * A log-prob ends at 0 and a value lies where it lies; the others are even around 0.
 */
function scaleOf(episodes, name) {
  const values = [];
  const stride = Math.max(1, Math.floor(episodes.length / 2000));
  for (let k = 0; k < episodes.length; k += stride) {
    for (const value of column(episodes[k], name) ?? []) if (value !== null) values.push(value);
  }
  if (!values.length) return { name, low: 0, mid: 0, high: 0 };
  values.sort((a, b) => a - b);
  const quantile = (share) => values[Math.round(share * (values.length - 1))];
  if (name === "log_prob") return { name, low: quantile(0.02), mid: 0, high: 0 };
  if (name === "value") return { name, low: quantile(0.02), mid: (quantile(0.02) + quantile(0.98)) / 2, high: quantile(0.98) };
  const most = Math.max(-quantile(0.01), quantile(0.99));
  return { name, low: -most, mid: 0, high: most };
}

/** Colour a token by its number: a share from 0 to 1 towards the low or the high colour. */
function paint(node, value, scale) {
  node.classList.remove("low", "high");
  if (value === null || value === undefined || !scale) return;
  const isLow = value < scale.mid;
  const edge = isLow ? scale.low : scale.high;
  const share = edge === scale.mid ? 0 : Math.min((value - scale.mid) / (edge - scale.mid), 1);
  node.classList.add(isLow ? "low" : "high");
  node.style.setProperty("--share", share.toFixed(3));
}

/** The legend of a scale. */
function scaleLegend(scale) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  for (let k = 0; k <= 20; k += 1) {
    const cell = make("i");
    const value = k < 10 ? scale.low + ((scale.mid - scale.low) * k) / 10 : scale.mid + ((scale.high - scale.mid) * (k - 10)) / 10;
    paint(cell, value, scale);
    if ((k < 10 && scale.low !== scale.mid) || (k >= 10 && scale.high !== scale.mid)) bar.append(cell);
  }
  const unit = Object.hasOwn(UNITS, scale.name) ? ` (${UNITS[scale.name]})` : "";
  return make("p", { class: "scale" }, `${columnName(scale.name)}${unit}: `, make("b", {}, spell(scale.low)), bar, make("b", {}, spell(scale.high)));
}

/** An episode as a card. The scale colours its tokens; label says whose it is. */
function card(episode, scale, label) {
  const facts = make("p", { class: "facts" }, make("b", { class: "return" }, `return ${spell(episode.return)}`));
  facts.append(make("span", {}, label));
  if (episode.finish_reason !== null) facts.append(make("span", {}, `end: ${episode.finish_reason}`));
  episode.parts.forEach(([name, value]) => facts.append(make("span", {}, `${name} ${spell(value)}`)));
  const node = make("article", { class: "episode" }, facts);
  if (episode.tokens === null) {
    const why = episode.return === null ? "no return" : "no tokens kept: its scoring failed";
    node.append(make("p", { class: "text" }, make("span", { class: "prompt" }, episode.prompt ?? ""), make("span", { class: "response" }, episode.response ?? "")), make("p", { class: "note" }, why));
    return node;
  }
  const tokens = make("span", {
    class: "tokens", tabindex: 0, role: "group",
    "aria-label": `Response of ${episode.tokens.length} tokens; arrow keys read them one by one`,
  });
  const reading = make("output", { class: "reading" });
  let current = -1;
  const values = scale ? column(episode, scale.name) : null;
  const addTokens = (from, to) => {
    for (let k = from; k < Math.min(to, episode.tokens.length); k += 1) {
      const span = make("span", { class: "token" }, episode.tokens[k]);
      paint(span, values?.[k], scale);
      tokens.append(span);
    }
  };
  const readToken = (k) => {
    tokens.children[current]?.classList.remove("current");
    current = Math.min(Math.max(k, 0), tokens.children.length - 1);
    tokens.children[current].classList.add("current");
    reading.replaceChildren(
      make("b", {}, `token ${current + 1} of ${episode.tokens.length}: “${episode.tokens[current]}”`),
      ...episode.columns.map(([name, numbers]) => make("span", {}, `${columnName(name)} ${spell(numbers[current])}`)),
    );
  };
  addTokens(0, FIRST_TOKENS);
  const pointed = (event) => {
    const k = [...tokens.children].indexOf(event.target);
    if (k >= 0) readToken(k);
  };
  tokens.addEventListener("pointerover", pointed);
  tokens.addEventListener("click", pointed);
  tokens.addEventListener("keydown", (event) => {
    const places = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: Infinity };
    if (!Object.hasOwn(places, event.key)) return;
    event.preventDefault();
    readToken(places[event.key]);
  });
  node.append(make("p", { class: "text" }, make("span", { class: "prompt" }, episode.prompt ?? ""), tokens), reading);
  if (episode.tokens.length > FIRST_TOKENS) {
    const more = make("button", { type: "button", click: () => {
      addTokens(tokens.children.length, Infinity);
      more.remove();
    } }, `Show all ${episode.tokens.length} tokens`);
    node.append(more);
  }
  node.append(disclosure("Numbers of every token", () =>
    grid(`Numbers of every token, ${label}, ${(ids += 1)}`, ["token", ...episode.columns.map(([name]) => columnName(name))], episode.tokens.map((token, k) => [token, ...episode.columns.map((pair) => pair[1][k])]))));
  return node;
}
