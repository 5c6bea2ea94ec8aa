// A part of the script of the page: the position, the view, pointer and keys, and the start.

// the position

/** Number and name of each class that is shown and in a frame. */
function countsOf(p) {
  const found = [];
  for (const label of labels) {
    const before = countsBefore.get(label);
    const n = before ? before[p + 1] - before[p] : 0;
    if (n && !hidden.has(label)) found.push([n, page.classes[label]]);
  }
  return found;
}

function countText(p) {
  return countsOf(p).map(([n, name]) => `${n} ${name}`).join(", ") || "none";
}

/** Show the counts of a frame; a name from right to left does not reorder the numbers. */
function showCounts(p) {
  const parts = countsOf(p).flatMap(([n, name], i) => [`${i ? ", " : ""}${n} `,
    Object.assign(document.createElement("bdi"), { textContent: name })]);
  byId("count-text").replaceChildren(...(parts.length ? parts : ["none"]));
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
  if (hovered === null) showCounts(position);
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
    listAreas();
  });
}

function makeAreas() {
  if (!counters.length) return;
  const table = document.createElement("table");
  table.createCaption().textContent = "Regions and lines";
  counters.forEach(({ area, what }, i) => {
    const row = table.insertRow(), name = document.createElement("th");
    name.scope = "row";
    name.textContent = counters[i - 1]?.area === area ? "" : area;
    row.append(name);
    row.insertCell().textContent = what;
    row.insertCell();
  });
  byId("areas").append(table);
  byId("areas").hidden = false;
}

function listAreas() {
  const cells = byId("areas").querySelectorAll("td:last-child");
  counters.forEach(({ frames, texts }, i) => {
    const k = lowerBound(frames, position + 1, 0, frames.length) - 1;
    const text = k < 0 ? "" : texts[k];
    if (cells[i].textContent !== text) cells[i].textContent = text;
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
  showCounts(p);
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
  if (hovered !== null) showCounts(position);
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
  if (target === byId("axis") && (event.key === "PageUp" || event.key === "PageDown")) {
    event.preventDefault();
    skip(event.key === "PageUp" ? 1 : -1);
    return;
  }
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
function showTheme() {
  readTheme();
  makeChips();
  arrange();
  draw(); // at once: paper does not wait for the next frame
}
function setPrinted(value) {
  isPrinted = value;
  document.documentElement.classList.toggle("paper", value);
  showTheme();
}
dark.addEventListener("change", showTheme);
addEventListener("beforeprint", () => setPrinted(true));
addEventListener("afterprint", () => setPrinted(false));
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
if (media?.annotated) legend.push("The picture has the smoothed score of each track.");
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
makeAreas();
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
