// A part of the script of the page: the constants and the data: frames by position, boxes by row.

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
// Counts of regions and lines: the frames at which each changes, and what it is from there on.
const counters = page.counters.map(([area, what]) => ({ area, what, frames: [], texts: [] }));
columns.count_frame.forEach((frame, i) => {
  const counter = counters[columns.count_place[i]];
  counter.frames.push(frame);
  counter.texts.push(page.texts[columns.count_text[i]]);
});
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
