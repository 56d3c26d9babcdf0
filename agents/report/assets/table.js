// Tables that stand in the page: sorted by a click or Enter on a head, filtered by text, without any network.

/** Value by which a cell is sorted: its number where it has one, else its text. */
function sortKey(cell) {
  const number = cell.getAttribute("data-value");
  return number === null ? cell.textContent.toLowerCase() : number === "" ? null : Number(number);
}

/** Compare two keys; what has no value comes last either way. */
function compareKeys(a, b, sign) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  return sign * (a < b ? -1 : a > b ? 1 : 0);
}

/** Make the heads of a table sort its rows. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, k) => {
    const button = make("button", { type: "button", click: () => {
      const sign = head.getAttribute("aria-sort") === "descending" || (head.getAttribute("aria-sort") === null && head.dataset.first !== "descending") ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => [sortKey(row.cells[k]), row]);
      keyed.sort((a, b) => compareKeys(a[0], b[0], sign));
      body.append(...keyed.map(([, row]) => row));
    } });
    button.append(...head.childNodes);
    head.append(button);
  });
}

/** Let a field hide the rows that do not hold its words. */
function filterable(table) {
  const status = make("p", { class: "status", role: "status" });
  const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    status.textContent = `${count} of ${table.tBodies[0].rows.length} rows`;
  });
  table.closest(".scroll").before(make("div", { class: "controls" }, field("Show rows with", input), status));
}
