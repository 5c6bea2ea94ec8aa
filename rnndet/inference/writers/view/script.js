// Draws the page from the data embedded in it. Frames are numbered by position, boxes by row.
"use strict";
(async () => {

const ROW = 20; // CSS pixels, --row of the style sheet
const LISTED = 100; // objects of a frame
const COUNTS = 86, AXIS = 26; // heights
const CUT = 1, RESTART = 2, UNLABELLED = 8, CORRUPTED = 16; // flags of frames
const DETECTED = 0, PREDICTED = 1, MISSED = 2, FALSE = 3; // kinds of boxes
const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, i4: Int32Array,
  f8: Float64Array };
const HUES = [250, 45, 155, 345, 95, 200, 305, 20, 125, 275];
const byId = (id) => document.getElementById(id);

// data

async function readColumns(manifest) {
  const text = atob(byId("columns").textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const columns = {};
  let offset = 0;
  for (const [name, type, length, isDelta] of manifest) {
    const end = offset + length * TYPES[type].BYTES_PER_ELEMENT;
    const values = new TYPES[type](buffer.slice(offset, end));
    if (isDelta) for (let i = 1; i < length; i++) values[i] += values[i - 1];
    columns[name] = values;
    offset = end;
  }
  return columns;
}

function note(text) {
  const item = document.createElement("li");
  item.textContent = text;
  byId("notes").append(item);
}

const page = JSON.parse(byId("data").textContent);
for (const [name, value] of page.facts) {
  const pair = document.createElement("div");
  pair.append(Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }));
  byId("facts").append(pair);
}
page.notes.forEach(note);
if (!("DecompressionStream" in window)) {
  note("This browser is too old for the page: it needs one of 2023 or later.");
  return;
}
const columns = await readColumns(page.columns);
const { time, shown: shownAt, index: sourceIndex, gap, flags } = columns;
const frameCount = time.length;
if (frameCount === 0) {
  note("There are no frames.");
  return;
}
const box = { frame: columns.box_frame, score: columns.box_score, label: columns.box_label,
  track: columns.box_track_label, kind: columns.box_kind,
  x1: columns.x1, y1: columns.y1, x2: columns.x2, y2: columns.y2 };
const boxCount = box.frame.length;

// The axis shows the times of the frames; times that do not increase are replaced.
const axisTime = time.every((t, i) => Number.isFinite(t) && (i === 0 || t > time[i - 1]))
  ? time : shownAt;
const step = page.step; // seconds of a frame without a next one
const axisEnd = new Float64Array(frameCount); // where each frame ends
for (let i = 0; i < frameCount; i++) {
  const next = i + 1 < frameCount ? axisTime[i + 1] : Infinity;
  const isBroken = i + 1 < frameCount && (gap[i + 1] > 0 || flags[i + 1] & RESTART);
  axisEnd[i] = i + 1 < frameCount && !isBroken ? next : Math.min(next, axisTime[i] + step);
}
const begin = axisTime[0], finish = axisEnd[frameCount - 1];

const rows = page.rows.map(([name, label], r) => {
  const from = columns.row_start[r], to = columns.row_start[r + 1];
  let count = 0, missed = 0, sum = 0;
  for (let b = from; b < to; b++) {
    if (box.kind[b] === MISSED) missed++;
    else if (box.kind[b] !== PREDICTED) { count++; sum += box.score[b]; }
  }
  return { name, label, from, to, count, missed, score: count ? sum / count / 10000 : NaN,
    number: /^#\d+$/.test(name) ? Number(name.slice(1)) : Infinity,
    start: axisTime[box.frame[from]], end: axisEnd[box.frame[to - 1]],
    text: `${page.classes[label]} ${name}`.toLowerCase() };
});
const hasMisses = rows.some((row) => row.missed);
const rowOf = new Uint32Array(boxCount);
rows.forEach((row, r) => rowOf.fill(r, row.from, row.to));
const frameStart = new Uint32Array(frameCount + 1); // of the boxes of each frame in inFrame
for (let b = 0; b < boxCount; b++) frameStart[box.frame[b] + 1]++;
for (let i = 0; i < frameCount; i++) frameStart[i + 1] += frameStart[i];
const inFrame = new Uint32Array(boxCount);
{
  const next = frameStart.slice();
  for (let b = 0; b < boxCount; b++) inFrame[next[box.frame[b]]++] = b;
}
const isCounted = (b) => box.kind[b] === DETECTED || box.kind[b] === FALSE;
const countsBefore = new Map(); // label -> boxes in the frames before each frame
for (let b = 0; b < boxCount; b++) {
  if (!isCounted(b)) continue;
  const label = box.label[b];
  if (!countsBefore.has(label)) countsBefore.set(label, new Uint32Array(frameCount + 1));
  countsBefore.get(label)[box.frame[b] + 1]++;
}
for (const sums of countsBefore.values()) {
  for (let i = 0; i < frameCount; i++) sums[i + 1] += sums[i];
}
const breaks = []; // frames at which something begins: cuts, gaps, restarts
for (let i = 0; i < frameCount; i++) {
  if (flags[i] & (CUT | RESTART) || gap[i] > 0) breaks.push(i);
}
const bands = []; // frames [from, to) of a background
for (const flag of [CORRUPTED, UNLABELLED]) {
  for (let i = 0; i < frameCount; i++) {
    if (!(flags[i] & flag)) continue;
    const from = i;
    while (i + 1 < frameCount && flags[i + 1] & flag) i++;
    bands.push({ flag, from, to: i + 1 });
  }
}
const labels = [...new Set([...rows.map((row) => row.label), ...countsBefore.keys()])];
const isTrack = (row) => row.number < Infinity;
const trackCounts = new Map(labels.map((label) => [label, 0]));
for (const row of rows) if (isTrack(row)) trackCounts.set(row.label, trackCounts.get(row.label) + 1);
const boxCounts = new Map(labels.map((label) => [label, countsBefore.get(label)?.[frameCount] ?? 0]));
labels.sort((a, b) => trackCounts.get(b) - trackCounts.get(a) || boxCounts.get(b) - boxCounts.get(a));

// state

const view = { from: begin, to: finish };
let position = 0, selected = -1;
let order = []; // rows in the table, from top to bottom
let sorting = { key: "start", descending: false };
let hovered = null; // frame under the pointer
const hidden = new Set(); // labels
const colours = {};
let theme = {};

function lowerBound(values, value, low, high) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The last frame that begins at or before a time. */
function frameAt(times, t) {
  const i = lowerBound(times, t, 0, frameCount);
  return Math.max(0, i < frameCount && times[i] === t ? i : i - 1);
}

function clockText(t, digits = 3) {
  const sign = t < 0 ? "-" : "", total = Math.abs(t);
  const scale = 10 ** digits, whole = Math.round(total * scale);
  const seconds = (whole % (60 * scale)) / scale, minutes = Math.floor(whole / (60 * scale));
  const rest = seconds.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const hours = Math.floor(minutes / 60);
  return sign + (hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}`
    : `${minutes}:${rest}`);
}

function score(value) {
  return Number.isNaN(value) ? "–" : value.toFixed(2);
}

// theme

const dark = matchMedia("(prefers-color-scheme: dark)");
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "faint", "back", "pick", "missed"]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
  const [light, chroma] = dark.matches ? [0.76, 0.13] : [0.56, 0.15];
  labels.forEach((label, k) => {
    const hue = k < HUES.length ? HUES[k] : (k * 137.5) % 360;
    colours[label] = `oklch(${light} ${k < HUES.length ? chroma : chroma / 2} ${hue})`;
  });
}

function swatch(label) {
  const mark = document.createElement("span");
  mark.className = "swatch";
  mark.style.background = colours[label];
  return mark;
}

// drawing

const lanes = byId("lanes");
let width = 0, left = 0; // of the time line, CSS pixels

function fit(canvas, w, h) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  return context;
}

const across = (t) => ((t - view.from) / (view.to - view.from)) * width;
const timeAt = (x) => view.from + (x / width) * (view.to - view.from);

let isScheduled = false;
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    draw();
  });
}

function draw() {
  left = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--left"));
  width = Math.max(50, lanes.clientWidth - left);
  drawCounts();
  drawAxis();
  drawBars();
  placeRows();
  placePlayhead();
  const share = (t) => (100 * (t - begin)) / (finish - begin);
  byId("thumb").style.left = `${share(view.from)}%`;
  byId("thumb").style.width = `${share(view.to) - share(view.from)}%`;
}

/** Backgrounds, gaps and cuts, from y to the bottom. */
function drawEvents(context, height) {
  for (const { flag, from, to } of bands) {
    const a = across(axisTime[from]), z = across(axisEnd[to - 1]);
    if (z < 0 || a > width) continue;
    if (flag === CORRUPTED) {
      context.fillStyle = theme.faint;
      context.fillRect(a, 0, z - a, height);
    } else hatch(context, a, z, height);
  }
  let last = -2;
  for (const i of breaks) {
    const x = across(axisTime[i]);
    const isGap = gap[i] > 0 || flags[i] & RESTART;
    if (isGap && i > 0) hatch(context, across(axisEnd[i - 1]), x, height);
    if (x < 0 || x > width || x - last < 1) continue;
    last = x;
    context.fillStyle = theme.soft;
    if (flags[i] & CUT) for (let y = 0; y < height; y += 6) context.fillRect(x - 0.5, y, 1.5, 4);
    else context.fillRect(x - 0.5, 0, 1, height);
  }
}

function hatch(context, a, z, height) {
  a = Math.max(a, -10);
  z = Math.min(z, width + 10);
  if (z - a < 1) return;
  context.save();
  context.beginPath();
  context.rect(a, 0, z - a, height);
  context.clip();
  context.strokeStyle = theme.line;
  context.beginPath();
  for (let x = a - height; x < z; x += 7) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
  context.restore();
}

let highest = 0; // objects in a frame, of the classes that are shown
function findHighest() {
  highest = 0;
  const sums = labels.filter((label) => !hidden.has(label)).map((label) => countsBefore.get(label));
  for (let i = 0; i < frameCount; i++) {
    let total = 0;
    for (const before of sums) if (before) total += before[i + 1] - before[i];
    highest = Math.max(highest, total);
  }
}

function drawCounts() {
  const context = fit(byId("counts"), byId("counts").parentElement.clientWidth - left, COUNTS);
  drawEvents(context, COUNTS);
  const scale = (COUNTS - 12) / Math.max(highest, 1);
  const isOn = labels.filter((label) => !hidden.has(label) && countsBefore.has(label));
  const firsts = new Uint32Array(width + 1), ends = new Uint32Array(width + 1);
  for (let x = 0; x < width; x++) {
    const from = timeAt(x), to = timeAt(x + 1);
    firsts[x] = frameAt(axisTime, from);
    ends[x] = Math.max(frameAt(axisTime, to), firsts[x]) + 1;
    if (from >= axisEnd[firsts[x]] && ends[x] === firsts[x] + 1) ends[x] = firsts[x]; // a gap
  }
  const tops = new Float64Array(width + 1);
  for (const label of isOn) {
    const before = countsBefore.get(label);
    context.fillStyle = colours[label];
    for (let x = 0; x < width; x++) {
      if (ends[x] === firsts[x]) continue;
      const mean = (before[ends[x]] - before[firsts[x]]) / (ends[x] - firsts[x]);
      if (mean === 0) continue;
      context.fillRect(x, COUNTS - tops[x] - mean * scale, 1, mean * scale);
      tops[x] += mean * scale;
    }
  }
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const nice = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((n) => highest / n <= 3) || 2000;
  for (let n = nice; n <= highest; n += nice) {
    const y = COUNTS - n * scale;
    context.fillStyle = theme.line;
    context.fillRect(0, y, width, 0.75);
    context.strokeStyle = theme.back;
    context.lineWidth = 3;
    context.strokeText(n, 4, y);
    context.fillStyle = theme.soft;
    context.fillText(n, 4, y);
  }
}

function drawAxis() {
  const context = fit(byId("axis").firstElementChild, byId("axis").clientWidth, AXIS);
  const steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120,
    300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
  const distance = steps.find((s) => (s / (view.to - view.from)) * width >= 74) || 864000;
  const digits = distance < 0.01 ? 3 : distance < 0.1 ? 2 : distance < 1 ? 1 : 0;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (let k = Math.ceil(view.from / distance); k * distance <= view.to; k++) {
    const x = across(k * distance);
    context.fillStyle = theme.line;
    context.fillRect(x, 0, 1, AXIS);
    context.fillStyle = theme.soft;
    context.fillText(clockText(k * distance, digits), x + 4, AXIS / 2 + 1);
  }
  let last = -9;
  for (const i of breaks) {
    const x = across(axisTime[i]);
    if (x < 0 || x > width || x - last < 2) continue;
    last = x;
    context.fillStyle = flags[i] & CUT ? theme.ink : theme.soft;
    context.beginPath();
    context.moveTo(x - 5, AXIS - 8);
    context.lineTo(x + 5, AXIS - 8);
    context.lineTo(x, AXIS);
    context.fill();
  }
}

function drawBars() {
  const height = lanes.clientHeight, top = lanes.scrollTop;
  const context = fit(byId("bars"), width, height);
  drawEvents(context, height);
  const first = frameAt(axisTime, view.from), last = frameAt(axisTime, view.to);
  const end = Math.min(order.length, Math.ceil((top + height) / ROW));
  for (let k = Math.floor(top / ROW); k < end; k++) {
    const row = rows[order[k]], y = k * ROW - top;
    context.globalAlpha = 1;
    context.fillStyle = theme.line;
    context.fillRect(0, y + ROW - 1, width, 0.5);
    drawRow(context, row, y, first, last);
  }
  context.globalAlpha = 1;
}

/** The boxes of a row in frames first to last: neighbours that look the same are one bar. */
function drawRow(context, row, y, first, last) {
  const ratio = window.devicePixelRatio || 1;
  const from = lowerBound(box.frame, first, row.from, row.to);
  const to = lowerBound(box.frame, last + 1, from, row.to);
  let a = 0, z = -1, level = -1, label = -1; // of the bar that grows
  const flush = () => {
    if (level < 0) return;
    context.fillStyle = colours[label];
    if (level === 0) { // predicted only
      context.globalAlpha = 0.6;
      context.fillRect(a, y + ROW / 2, z - a, 1.5);
    } else {
      const height = 3 + ((ROW - 7) * (level - 1)) / 15;
      context.globalAlpha = 0.45 + (0.55 * (level - 1)) / 15;
      context.fillRect(a, y + ROW - 3 - height, z - a, height);
    }
  };
  for (let b = from; b < to; b++) {
    if (box.kind[b] === MISSED) continue;
    const f = box.frame[b];
    const start = Math.round(Math.max(0, across(axisTime[f])) * ratio) / ratio;
    const stop = Math.max(start + 1 / ratio, Math.round(across(axisEnd[f]) * ratio) / ratio);
    const newLevel = box.kind[b] === PREDICTED ? 0 : 1 + Math.round(box.score[b] * 15e-4);
    if (level >= 0 && stop <= z) { // in the pixel of the box before: the higher one is drawn
      if (newLevel > level && stop - a <= 1 / ratio) {
        level = newLevel;
        label = box.track[b];
      }
      continue;
    }
    if (newLevel === level && box.track[b] === label && start <= z) {
      z = stop;
      continue;
    }
    flush();
    a = start;
    z = stop;
    level = newLevel;
    label = box.track[b];
  }
  flush();
  if (row.missed === 0) return;
  context.globalAlpha = 1;
  context.fillStyle = theme.missed;
  let done = -1;
  for (let b = from; b < to; b++) {
    if (box.kind[b] !== MISSED) continue;
    const f = box.frame[b];
    const start = Math.max(done, across(axisTime[f]));
    done = Math.max(start, across(axisTime[f]) + 1, across(axisEnd[f]));
    if (done > start) context.fillRect(start, y + ROW - 5, done - start, 2.5);
  }
}

function placePlayhead() {
  const middle = axisTime[position];
  const isIn = middle >= view.from && middle <= view.to;
  byId("playhead").hidden = !isIn;
  byId("playhead").style.transform = `translateX(${left + across(middle)}px)`;
}

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
  findHighest();
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

// the picture

const video = byId("video"), image = byId("image"), stage = byId("stage");
const media = page.media;
let isAnnotated = false; // the boxes are in the pixels
let player = null;

function fileAt(path) {
  return media.base + path;
}

/** Moves by a clock, for images or without a picture; show(p) shows a frame. */
function clockPlayer(show) {
  let isPlaying = false, at = 0, last = 0;
  function tick(now) {
    if (!isPlaying) return;
    at += ((now - last) / 1000) * Number(byId("speed").value);
    last = now;
    if (at >= finish) player.pause();
    moveTo(frameAt(axisTime, at));
    requestAnimationFrame(tick);
  }
  return {
    isPaused: () => !isPlaying,
    play() {
      isPlaying = true;
      at = axisTime[position];
      last = performance.now();
      requestAnimationFrame(tick);
      showPlaying();
    },
    pause() {
      isPlaying = false;
      showPlaying();
    },
    seek(p) {
      at = axisTime[p];
    },
    show,
    setSpeed() {},
  };
}

function imagePlayer() {
  let isLoading = false, wanted = 0, loaded = -1;
  function load(p) {
    isLoading = true;
    loaded = p;
    image.src = fileAt(media.files[p]);
  }
  function next() {
    isLoading = false;
    drawOverlay();
    if (wanted !== loaded) load(wanted);
  }
  image.addEventListener("load", () => {
    stage.classList.remove("blank");
    image.style.visibility = "";
    next();
  });
  let hasFailed = false;
  image.addEventListener("error", () => {
    if (!hasFailed) note(`${media.files[loaded]} cannot be shown; is it where it was, as this page?`);
    hasFailed = true;
    image.style.visibility = "hidden"; // the boxes of this frame, not on another picture
    stage.classList.add("blank");
    next();
  });
  image.hidden = false;
  return clockPlayer((p) => {
    wanted = p;
    if (!isLoading && loaded !== p) load(p);
  });
}

function videoPlayer() {
  let isLate = false; // sought again while it was seeking
  const target = () => {
    const end = position + 1 < frameCount ? shownAt[position + 1] : shownAt[position] + step;
    return shownAt[position] + Math.min((end - shownAt[position]) / 2, 0.01);
  };
  const follow = (t) => {
    if (!video.paused && !video.seeking) moveTo(frameAt(shownAt, t + 0.0005));
  };
  if ("requestVideoFrameCallback" in video) {
    const onFrame = (now, { mediaTime }) => {
      follow(mediaTime);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  }
  video.addEventListener("timeupdate", () => follow(video.currentTime));
  video.addEventListener("seeked", () => {
    if (isLate) video.currentTime = target();
    isLate = false;
  });
  for (const name of ["play", "pause", "ended"]) video.addEventListener(name, showPlaying);
  video.addEventListener("ended", () => moveTo(frameCount - 1));
  video.addEventListener("loadedmetadata", drawOverlay);
  video.addEventListener("loadeddata", drawOverlay);
  video.addEventListener("error", () => {
    note(`${media.name} cannot be played: it is not beside this page, or this browser does not know `
      + `its codec${media.hint ? `. ${media.hint}` : ""}. The boxes are drawn without the picture.`);
    video.hidden = true;
    showBlank();
    seek(position);
  });
  video.hidden = false;
  video.src = fileAt(media.files[0]);
  return {
    isPaused: () => video.paused,
    play() {
      if (video.ended || position === frameCount - 1) seek(0);
      video.playbackRate = Number(byId("speed").value);
      video.play().catch(() => {});
    },
    pause: () => video.pause(),
    seek() {
      if (video.seeking) isLate = true;
      else video.currentTime = target();
    },
    show() {},
    setSpeed: (value) => { video.playbackRate = value; },
  };
}

function showBlank() {
  isAnnotated = false;
  stage.classList.add("blank");
  player = clockPlayer(() => {});
  drawOverlay();
}

function pictureSize() {
  return !video.hidden && video.videoWidth ? [video.videoWidth, video.videoHeight]
    : !image.hidden && image.naturalWidth ? [image.naturalWidth, image.naturalHeight] : page.size;
}

function pictureRect() {
  const size = pictureSize();
  const scale = Math.min(stage.clientWidth / size[0], stage.clientHeight / size[1]);
  const w = size[0] * scale, h = size[1] * scale;
  return { x: (stage.clientWidth - w) / 2, y: (stage.clientHeight - h) / 2, w, h };
}

/** x, y, width and height of a box on the stage. */
function placed(b, rect) {
  const [w, h] = media && isAnnotated ? media.size : page.size;
  const across = rect.w / w / page.scale, down = rect.h / h / page.scale;
  return [rect.x + box.x1[b] * across, rect.y + box.y1[b] * down,
    (box.x2[b] - box.x1[b]) * across, (box.y2[b] - box.y1[b]) * down];
}

function boxesNow() {
  const found = [];
  for (let i = frameStart[position]; i < frameStart[position + 1]; i++) {
    if (!hidden.has(rows[rowOf[inFrame[i]]].label)) found.push(inFrame[i]);
  }
  return found;
}

function rowName(b) {
  if (box.kind[b] === FALSE) return "false positive";
  const kind = { [PREDICTED]: "expected", [MISSED]: "missed" }[box.kind[b]];
  return rows[rowOf[b]].name + (kind ? `, ${kind}` : "");
}

function boxName(b) {
  return `${page.classes[box.track[b]]} ${rowName(b)}`;
}

function drawOverlay() {
  const [w, h] = pictureSize();
  stage.style.aspectRatio = `${w} / ${h}`;
  const context = fit(byId("overlay"), stage.clientWidth, stage.clientHeight);
  const rect = pictureRect();
  if (stage.classList.contains("blank")) {
    context.fillStyle = theme.back;
    context.fillRect(rect.x, rect.y, rect.w, rect.h);
    context.strokeStyle = theme.line;
    context.strokeRect(rect.x, rect.y, rect.w, rect.h);
  }
  const now = boxesNow();
  const isNamed = now.length <= 40;
  now.sort((p, q) => (rowOf[p] === selected) - (rowOf[q] === selected));
  const seen = isAnnotated ? now.filter((b) => rowOf[b] === selected) : now;
  for (const b of seen) drawBox(context, b, placed(b, rect));
  if (isAnnotated) return; // the names are in the picture
  const taken = []; // by names: left, top, right
  for (const b of seen) {
    if (isNamed || rowOf[b] === selected) drawName(context, b, placed(b, rect), taken);
  }
}

function drawBox(context, b, [x, y, w, h]) {
  const isPicked = rowOf[b] === selected;
  const kind = box.kind[b];
  const colour = kind === MISSED ? theme.missed : kind === FALSE ? "#f0e442" : colours[box.track[b]];
  context.setLineDash([]);
  context.strokeStyle = "#000b";
  context.lineWidth = isPicked ? 6 : 3.5;
  context.strokeRect(x, y, w, h);
  context.strokeStyle = isPicked ? "#fff" : colour;
  context.lineWidth = isPicked ? 3 : 2;
  context.setLineDash(kind === MISSED || kind === PREDICTED ? [7, 4] : []);
  context.strokeRect(x, y, w, h);
  context.setLineDash([]);
}

/** The name of a box above it, or higher where another name is. */
function drawName(context, b, [x, y, , h], taken) {
  const kind = box.kind[b];
  const figure = kind === DETECTED || kind === FALSE ? ` ${score(box.score[b] / 10000)}` : "";
  const text = boxName(b) + figure;
  context.font = "12px system-ui, sans-serif";
  const room = context.measureText(text).width + 8;
  const tx = Math.max(0, Math.min(x, stage.clientWidth - room)), isAbove = y >= 17;
  let ty = isAbove ? y - 17 : y + h + 1;
  while (taken.some(([a, top, z]) => a < tx + room && z > tx && Math.abs(top - ty) < 16)) {
    ty += isAbove ? -17 : 17;
  }
  taken.push([tx, ty, tx + room]);
  context.fillStyle = "#000c";
  context.fillRect(tx, ty, room, 16);
  context.fillStyle = kind === MISSED ? "#ffb48a" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, tx + 4, ty + 8.5);
}

byId("overlay").addEventListener("click", (event) => {
  const rect = pictureRect();
  let best = -1, least = Infinity;
  for (const b of boxesNow()) {
    const [x, y, w, h] = placed(b, rect);
    const isIn = event.offsetX >= x - 3 && event.offsetX <= x + w + 3
      && event.offsetY >= y - 3 && event.offsetY <= y + h + 3;
    if (isIn && w * h < least) [best, least] = [b, w * h];
  }
  select(best < 0 ? -1 : rowOf[best]);
});

// the position

function countText(p) {
  const parts = [];
  for (const label of labels) {
    const before = countsBefore.get(label);
    const n = before ? before[p + 1] - before[p] : 0;
    if (n && !hidden.has(label)) parts.push(`${n} ${page.classes[label]}`);
  }
  return parts.join(", ") || "none";
}

/** Show the frame at `position` everywhere but in the video. */
function showPosition() {
  const t = axisTime[position], lost = gap[position];
  const marks = [flags[position] & CUT ? "scene cut" : "", lost ? `${lost} frames lost before` : "",
    flags[position] & CORRUPTED ? "corrupted" : "",
    flags[position] & UNLABELLED ? "not labelled" : ""].filter(Boolean);
  byId("clock").textContent = `${clockText(t)} / ${clockText(finish)} · frame ${sourceIndex[position]}`
    + (marks.length ? ` · ${marks.join(", ")}` : "");
  const axis = byId("axis");
  axis.setAttribute("aria-valuenow", t.toFixed(3));
  axis.setAttribute("aria-valuetext", `${clockText(t)}, frame ${sourceIndex[position]}: ${countText(position)}`);
  if (hovered === null) byId("count-text").textContent = countText(position);
  player?.show(position);
  placePlayhead();
  scheduleObjects();
}

let isListing = false; // the objects of the frame are shown once before the next repaint
function scheduleObjects() {
  if (isListing) return;
  isListing = true;
  requestAnimationFrame(() => {
    isListing = false;
    drawOverlay();
    listNow();
  });
}

function listNow() {
  const list = byId("now"), all = boxesNow();
  const now = all.sort((p, q) => box.score[q] - box.score[p]).slice(0, LISTED);
  byId("now-title").textContent = "In this frame"
    + (all.length > LISTED ? `: the first ${LISTED} of ${all.length}` : "");
  while (list.children.length > now.length) list.lastElementChild.remove();
  while (list.children.length < now.length) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.append(...["swatch", "grow", "soft", "num"].map((css) =>
      Object.assign(document.createElement("span"), { className: css })));
    button.addEventListener("click", () => select(Number(button.dataset.row)));
    item.append(button);
    list.append(item);
  }
  now.forEach((b, i) => {
    const button = list.children[i].firstElementChild;
    const [mark, name, row, figure] = button.children;
    button.dataset.row = rowOf[b];
    button.setAttribute("aria-pressed", String(rowOf[b] === selected));
    mark.style.background = box.kind[b] === MISSED ? theme.missed : colours[box.track[b]];
    name.textContent = page.classes[box.track[b]];
    row.textContent = rowName(b);
    figure.textContent = isCounted(b) ? score(box.score[b] / 10000) : "";
  });
}

function showPlaying() {
  const isPaused = player.isPaused();
  byId("play").textContent = isPaused ? "▶" : "❚❚";
  byId("play").setAttribute("aria-label", isPaused ? "Play" : "Pause");
}

/** Take over a position that the picture has. */
function moveTo(p) {
  if (p === position) return;
  position = p;
  keepInView();
  showPosition();
}

/** Go to a frame. */
function seek(p) {
  position = Math.max(0, Math.min(frameCount - 1, p));
  keepInView();
  showPosition();
  player.seek(position);
  rememberTime();
}

function keepInView() {
  const t = axisTime[position], length = view.to - view.from;
  if (t >= view.from && t < view.to) return;
  show(t < view.from ? t - 0.9 * length : t - 0.1 * length, length);
}

let remembering = 0;
function rememberTime() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    try {
      history.replaceState(null, "", `#t=${axisTime[position].toFixed(3)}`);
    } catch { /* a browser that allows no addresses here: only the link is lost */ }
  }, 400);
}

function openAddress() {
  const found = /[#&]t=(\d+(?:\.\d+)?)/.exec(location.hash);
  if (found) seek(frameAt(axisTime, Number(found[1]) + 0.0006)); // the address is rounded
}

// the view

function show(from, length) {
  const shortest = Math.min(finish - begin, Math.max(step * 8, 0.05));
  length = Math.max(shortest, Math.min(length, finish - begin));
  view.from = Math.max(begin, Math.min(from, finish - length));
  view.to = view.from + length;
  schedule();
}

function zoom(factor, t = axisTime[position]) {
  const length = (view.to - view.from) / factor;
  const share = Math.max(0, Math.min(1, (t - view.from) / (view.to - view.from)));
  show(t - share * length, length);
}

function zoomToSelected() {
  if (selected < 0) return;
  const { start, end } = rows[selected];
  show(start - (end - start) * 0.1, (end - start) * 1.2);
}

const chart = byId("chart");
function pointed(event) {
  return event.clientX - chart.getBoundingClientRect().left - chart.clientLeft - left;
}

/** Seek while a button is down; targets: elements whose x is time. */
function scrubs(element, isTime = () => true) {
  let isDown = false, wasPlaying = false;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointed(event) < 0 || pointed(event) > width || !isTime(event)) return;
    isDown = true;
    wasPlaying = !player.isPaused();
    element.setPointerCapture(event.pointerId);
    seek(frameAt(axisTime, timeAt(pointed(event))));
  });
  element.addEventListener("pointermove", (event) => {
    if (isDown) seek(frameAt(axisTime, timeAt(Math.max(0, Math.min(width, pointed(event))))));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    element.addEventListener(name, () => {
      if (isDown && wasPlaying && player.isPaused()) player.play();
      isDown = false;
    });
  }
}
scrubs(byId("counts"));
scrubs(byId("axis"));
scrubs(byId("rows"));
byId("rows").addEventListener("pointerdown", (event) => {
  const row = event.target.closest(".row");
  if (event.button === 0 && row) select(Number(row.dataset.row), { reveal: false });
});
byId("rows").addEventListener("dblclick", (event) => {
  if (pointed(event) < 0) goToStart();
});

function goToStart() {
  if (selected >= 0) seek(box.frame[rows[selected].from]);
}

chart.addEventListener("wheel", (event) => {
  const isAcross = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (event.ctrlKey) {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), timeAt(pointed(event)));
  } else if (isAcross) {
    event.preventDefault();
    const length = view.to - view.from;
    show(view.from + ((event.deltaX || event.deltaY) / width) * length, length);
  }
}, { passive: false });

{
  let grip = null; // share of the whole at which the thumb was taken
  const share = (event) => {
    const { left: edge, width: size } = byId("pan").getBoundingClientRect();
    return (event.clientX - edge) / size;
  };
  byId("pan").addEventListener("pointerdown", (event) => {
    const t = begin + share(event) * (finish - begin), length = view.to - view.from;
    if (t < view.from || t > view.to) show(t - length / 2, length);
    grip = t - view.from;
    byId("pan").setPointerCapture(event.pointerId);
  });
  byId("pan").addEventListener("pointermove", (event) => {
    if (grip === null) return;
    show(begin + share(event) * (finish - begin) - grip, view.to - view.from);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    byId("pan").addEventListener(name, () => { grip = null; });
  }
}

chart.addEventListener("pointermove", (event) => {
  const x = pointed(event), tip = byId("tip");
  if (x < 0 || x > width) return leaveChart();
  const p = frameAt(axisTime, timeAt(x));
  hovered = p;
  byId("count-text").textContent = countText(p);
  const lines = [`${clockText(axisTime[p])} · frame ${sourceIndex[p]}`];
  const row = event.target.closest(".row");
  if (row) {
    const r = Number(row.dataset.row);
    const b = lowerBound(box.frame, p, rows[r].from, rows[r].to);
    const isThere = b < rows[r].to && box.frame[b] === p;
    lines.push(!isThere ? `${page.classes[rows[r].label]} ${rows[r].name}: not here`
      : boxName(b) + (isCounted(b) ? ` ${score(box.score[b] / 10000)}` : ""));
  } else lines.push(countText(p));
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const area = chart.getBoundingClientRect();
  const place = event.clientX - area.left;
  tip.style.left = `${place > area.width - 230 ? place - 12 - tip.offsetWidth : place + 12}px`;
  tip.style.top = `${Math.max(0, Math.min(area.height - tip.offsetHeight - 2, event.clientY - area.top + 14))}px`;
});
function leaveChart() {
  byId("tip").hidden = true;
  if (hovered !== null) byId("count-text").textContent = countText(position);
  hovered = null;
}
chart.addEventListener("pointerleave", leaveChart);

// controls and keys

function toggle() {
  if (player.isPaused()) {
    if (position === frameCount - 1) seek(0);
    player.play();
  } else {
    player.pause();
    rememberTime();
  }
}

function step1(frames) {
  if (!player.isPaused()) player.pause();
  seek(position + frames);
}

function skip(seconds) {
  const target = frameAt(axisTime, axisTime[position] + seconds);
  seek(target === position ? position + Math.sign(seconds) : target);
}

function goToBreak(direction) {
  const found = direction > 0 ? breaks.find((i) => i > position)
    : breaks.findLast((i) => i < position);
  if (found !== undefined) seek(found);
}

function selectNext(direction) {
  if (!order.length) return;
  const place = order.indexOf(selected);
  const next = place < 0 ? (direction > 0 ? 0 : order.length - 1)
    : Math.max(0, Math.min(order.length - 1, place + direction));
  select(order[next]);
}

function clearOne() {
  if (selected >= 0) return select(-1);
  byId("filter").value = "";
  hidden.clear();
  pressChips();
  arrange();
}

function openHelp() {
  byId("help").showModal();
}

const KEYS = {
  " ": toggle,
  ArrowLeft: (event) => (event.shiftKey ? skip(-1) : step1(-1)),
  ArrowRight: (event) => (event.shiftKey ? skip(1) : step1(1)),
  ",": () => step1(-1),
  ".": () => step1(1),
  "[": () => goToBreak(-1),
  "]": () => goToBreak(1),
  Home: () => seek(0),
  End: () => seek(frameCount - 1),
  ArrowUp: () => selectNext(-1),
  ArrowDown: () => selectNext(1),
  Enter: goToStart,
  z: zoomToSelected,
  "+": () => zoom(1.6),
  "=": () => zoom(1.6),
  "-": () => zoom(1 / 1.6),
  0: () => show(begin, finish - begin),
  "/": () => byId("filter").select(),
  "?": openHelp,
  Escape: clearOne,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const { target } = event;
  if (target === byId("filter")) {
    if (event.key !== "Escape" && event.key !== "Enter") return;
    if (event.key === "Escape") {
      target.value = "";
      arrange();
    }
    byId("grid").focus({ preventScroll: true });
    event.preventDefault();
    return;
  }
  if (target.tagName === "SELECT") return;
  if (target.tagName === "BUTTON" && (event.key === " " || event.key === "Enter")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action(event);
});

byId("play").addEventListener("click", toggle);
byId("first").addEventListener("click", () => seek(0));
byId("last").addEventListener("click", () => seek(frameCount - 1));
byId("back").addEventListener("click", () => step1(-1));
byId("forward").addEventListener("click", () => step1(1));
byId("speed").addEventListener("change", () => player.setSpeed(Number(byId("speed").value)));
byId("help-button").addEventListener("click", openHelp);
byId("zoom-in").addEventListener("click", () => zoom(1.6));
byId("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
byId("zoom-all").addEventListener("click", () => show(begin, finish - begin));
byId("filter").addEventListener("input", arrange);
lanes.addEventListener("scroll", schedule);
addEventListener("hashchange", openAddress);
dark.addEventListener("change", () => {
  readTheme();
  makeChips();
  arrange();
});
function resize() {
  sizeLanes();
  schedule();
  drawOverlay();
}
new ResizeObserver(resize).observe(stage);
addEventListener("resize", resize);

// start

byId("main").hidden = false;
byId("axis").setAttribute("aria-valuemin", begin.toFixed(3));
byId("axis").setAttribute("aria-valuemax", finish.toFixed(3));
const legend = ["Bars: higher and stronger for a higher score."];
if (hasMisses) legend.push("Thin line and dashed box: missed.");
if (box.kind.includes(FALSE)) legend.push("Yellow box: false positive.");
if (box.kind.includes(PREDICTED)) legend.push("Thin line: expected, not detected.");
if (breaks.some((i) => flags[i] & CUT)) legend.push("▾ and dashes: scene cut.");
if (breaks.some((i) => gap[i] > 0 || flags[i] & RESTART)) legend.push("▾ and hatching: frames lost.");
if (bands.some(({ flag }) => flag === UNLABELLED)) legend.push("Hatching: not labelled.");
if (bands.some(({ flag }) => flag === CORRUPTED)) legend.push("Shaded: corrupted frames.");
byId("legend").textContent = legend.join(" ");
readTheme();
makeHead();
makeChips();
if (!media) showBlank();
else {
  isAnnotated = media.annotated;
  player = media.kind === "video" ? videoPlayer() : imagePlayer();
}
arrange();
draw();
openAddress();
performance.mark("ready");
document.documentElement.dataset.state = "ready";

})();
