// A part of the script of the page: the video or the images, and the boxes on them.

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
  let origin = NaN; // time of the first frame of the file: in Firefox 0, in Chromium its time stamp
  const target = () => {
    const end = position + 1 < frameCount ? shownAt[position + 1] : shownAt[position] + step;
    return origin + shownAt[position] + Math.min((end - shownAt[position]) / 2, 0.01);
  };
  const follow = (t) => {
    if (video.paused || video.seeking || Number.isNaN(origin)) return;
    moveTo(frameAt(shownAt, t - origin + 0.0005));
  };
  if ("requestVideoFrameCallback" in video) {
    const onFrame = (now, { mediaTime }) => {
      follow(mediaTime);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  }
  video.addEventListener("timeupdate", () => follow(video.currentTime));
  const catchUp = () => {
    if (Number.isNaN(origin)) return;
    if (isLate) video.currentTime = target();
    isLate = false;
  };
  video.addEventListener("seeked", catchUp);
  for (const name of ["play", "pause", "ended"]) video.addEventListener(name, showPlaying);
  video.addEventListener("ended", () => moveTo(frameCount - 1));
  video.addEventListener("loadedmetadata", drawOverlay);
  video.addEventListener("loadeddata", () => {
    if (Number.isNaN(origin)) origin = video.currentTime; // nothing was sought yet
    catchUp();
    drawOverlay();
  });
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
      if (video.seeking || Number.isNaN(origin)) isLate = true;
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
  stage.style.setProperty("--ratio", w / h);
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
