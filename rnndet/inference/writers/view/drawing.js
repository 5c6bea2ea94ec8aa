// A part of the script of the page: the state, the colours and the canvases.

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

const dark = matchMedia("screen and (prefers-color-scheme: dark)");
let isPrinted = false; // in light colours, also from a dark screen
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "faint", "back", "pick", "missed"]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
  const [light, chroma] = dark.matches && !isPrinted ? [0.76, 0.13] : [0.56, 0.15];
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

const chart = byId("chart"), lanes = byId("lanes");
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
  chart.style.setProperty("--over", byId("axis").clientWidth / width); // its share of the scroll bar
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
  context.lineWidth = 1; // the numbers of the counts leave another
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
  byId("playhead").style.setProperty("--share", across(middle) / width);
  byId("playhead").style.transform = `translateX(${left + across(middle)}px)`;
}
