"use strict";
// Everything that the page shows is made here, and only as elements and text nodes: no markup is ever parsed.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; children are nodes or texts. Attributes are set by name, `text` and listeners apart. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

/** Spell a number for a reader: at most four digits that matter, a true minus, an en dash for none. */
function spell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) text = value.toExponential(1);
  else if (Number.isInteger(value) || size >= 1000) text = Math.round(value).toLocaleString("en");
  else text = String(Number(value.toPrecision(size < 1 ? 3 : 4)));
  return text.replace("-", "−");
}

let ids = 0;

/** A label with its control inside of one block. */
function field(text, control) {
  control.id = `field-${(ids += 1)}`;
  return make("div", { class: "field" }, make("label", { for: control.id }, text), control);
}

/** A select over [value, text] pairs. */
function choice(pairs, chosen, change) {
  const select = make("select", { change: () => change(select.value) });
  pairs.forEach(([value, text]) => select.append(make("option", { value, selected: value === chosen }, text)));
  return select;
}

/** A table of texts and numbers, numbers to the right. */
function grid(caption, heads, rows) {
  const cell = (value, k) =>
    k === 0
      ? make("th", { scope: "row" }, typeof value === "number" ? spell(value) : value)
      : make("td", { class: typeof value === "string" ? null : "num" }, typeof value === "string" ? value : spell(value));
  return make(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    make(
      "table",
      { class: "plain" },
      make("caption", { class: "hidden" }, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
    ),
  );
}

/** A disclosure whose content is made when it is first opened. */
function disclosure(summary, content) {
  const details = make("details", {}, make("summary", {}, summary));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(content());
  });
  return details;
}
