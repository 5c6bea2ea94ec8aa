// A part of the script of the page: the table, its filter and its order.

// rows of the table; only those in sight have elements

const FIELDS = [
  ["class", (row) => page.classes[row.label], (row) => page.classes[row.label]],
  ["track", (row) => row.name, (row) => row.number],
  ["start", (row) => clockText(row.start, 1), (row) => row.start],
  ["end", (row) => clockText(row.end, 1), (row) => row.end],
  ["frames", (row) => row.count, (row) => row.count],
];
if (hasMisses) {
  sorting = { key: "missed", descending: true };
  FIELDS.push(["missed", (row) => row.missed, (row) => row.missed]);
  document.documentElement.classList.add("misses");
}
FIELDS.push(["score", (row) => score(row.score), (row) => (row.count ? row.score : -1)]);

const elements = new Map(); // place in order -> element
function placeRows() {
  const top = lanes.scrollTop;
  const first = Math.max(0, Math.floor(top / ROW) - 2);
  const end = Math.min(order.length, Math.ceil((top + lanes.clientHeight) / ROW) + 2);
  const free = [];
  for (const [k, element] of elements) {
    if (k >= first && k < end && element.dataset.row === String(order[k])) continue;
    elements.delete(k);
    free.push(element);
  }
  for (let k = first; k < end; k++) {
    if (!elements.has(k)) {
      const element = free.pop() || newRow();
      fillRow(element, k);
      elements.set(k, element);
    }
    elements.get(k).setAttribute("aria-selected", String(order[k] === selected));
  }
  free.forEach((element) => element.remove());
  const active = elements.get(order.indexOf(selected));
  if (active) byId("grid").setAttribute("aria-activedescendant", active.id);
  else byId("grid").removeAttribute("aria-activedescendant");
}

function newRow() {
  const element = document.createElement("div");
  element.className = "row";
  element.setAttribute("role", "row");
  for (const _ of FIELDS) {
    const cell = document.createElement("span");
    cell.setAttribute("role", "gridcell");
    element.append(cell);
  }
  byId("rows").append(element);
  return element;
}

function fillRow(element, k) {
  const row = rows[order[k]];
  element.dataset.row = order[k];
  element.id = `row-${order[k]}`;
  element.style.top = `${k * ROW}px`;
  element.setAttribute("aria-rowindex", k + 2);
  FIELDS.forEach(([, text], i) => {
    element.children[i].textContent = text(row);
  });
  element.firstElementChild.prepend(swatch(row.label));
  element.firstElementChild.title = page.classes[row.label];
}

function makeHead() {
  for (const [key] of FIELDS) {
    const cell = document.createElement("span");
    cell.setAttribute("role", "columnheader");
    const button = document.createElement("button");
    button.dataset.key = key;
    button.addEventListener("click", () => {
      const isSame = sorting.key === key;
      const isFigure = key === "frames" || key === "score" || key === "missed";
      sorting = { key, descending: isSame ? !sorting.descending : isFigure };
      arrange();
    });
    cell.append(button);
    byId("head").append(cell);
  }
}

/** Filter and sort the rows. */
function arrange() {
  const query = byId("filter").value.trim().toLowerCase();
  const fits = (row) => !query || (/^#?\d+$/.test(query)
    ? row.name === `#${query.replace("#", "")}` : row.text.includes(query));
  order = [...rows.keys()].filter((r) => !hidden.has(rows[r].label) && fits(rows[r]));
  const value = FIELDS.find(([key]) => key === sorting.key)[2];
  const sign = sorting.descending ? -1 : 1;
  order.sort((p, q) => {
    const a = value(rows[p]), b = value(rows[q]);
    return (a < b ? -sign : a > b ? sign : 0) || p - q;
  });
  for (const cell of byId("head").children) {
    const button = cell.firstElementChild, { key } = button.dataset;
    const isOn = key === sorting.key;
    cell.setAttribute("aria-sort", !isOn ? "none" : sorting.descending ? "descending" : "ascending");
    button.textContent = key + (!isOn ? "" : sorting.descending ? " ▾" : " ▴");
  }
  byId("rows").style.height = `${order.length * ROW}px`;
  sizeLanes();
  byId("grid").setAttribute("aria-rowcount", order.length + 1);
  const all = rows.filter(isTrack).length, some = order.filter((r) => isTrack(rows[r])).length;
  byId("status").textContent = some === all ? `${all} ${all === 1 ? "track" : "tracks"}`
    : `${some} of ${all} tracks`;
  byId("empty").hidden = order.length > 0;
  byId("empty").textContent = rows.length ? "No track fits the filter." : "Nothing was detected.";
  for (const [k, element] of elements) {
    element.remove();
    elements.delete(k);
  }
  showPosition();
  schedule();
}

/** The rows fill the window, but have room for a few in a low one. */
function sizeLanes() {
  const room = innerHeight - (lanes.getBoundingClientRect().top + scrollY) - 80;
  const height = Math.min(Math.max(room, 9 * ROW), Math.max(order.length, 3) * ROW);
  lanes.style.height = `${height}px`;
}

function makeChips() {
  byId("chips").replaceChildren();
  for (const label of labels) {
    const chip = document.createElement("button");
    chip.className = "chip";
    chip.dataset.label = label;
    chip.title = `${page.classes[label]}: ${trackCounts.get(label)} tracks, ${boxCounts.get(label)} `
      + "boxes. Click: hide or show; with Shift: show only this class";
    const name = document.createElement("span");
    name.className = "grow";
    name.textContent = page.classes[label];
    const number = document.createElement("span");
    number.className = "soft";
    number.textContent = trackCounts.get(label) || "";
    chip.append(swatch(label), name, number);
    chip.addEventListener("click", (event) => {
      if (event.shiftKey) {
        const isOnly = labels.every((other) => hidden.has(other) === (other !== label));
        hidden.clear();
        if (!isOnly) labels.forEach((other) => other !== label && hidden.add(other));
      } else if (!hidden.delete(label)) hidden.add(label);
      pressChips();
      arrange();
    });
    byId("chips").append(chip);
  }
  pressChips();
}

function pressChips() {
  findHighest();
  for (const chip of byId("chips").children) {
    chip.setAttribute("aria-pressed", String(!hidden.has(Number(chip.dataset.label))));
  }
}

function select(r, { reveal = true } = {}) {
  selected = r;
  const place = order.indexOf(r);
  if (reveal && place >= 0) {
    const top = place * ROW;
    if (top < lanes.scrollTop) lanes.scrollTop = top;
    if (top + ROW > lanes.scrollTop + lanes.clientHeight) {
      lanes.scrollTop = top + ROW - lanes.clientHeight;
    }
  }
  showPosition();
  schedule();
}
