"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const video = find("video"), canvas = find("masks"), seek = find("seek"), line = find("line");
  const [height, width] = data.size;
  const TINT = 115, STRIPES = 0.6, STRIPE = Math.max(3, Math.round(Math.min(height, width) / 90));
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const labels = new Uint8Array(height * width); // column by column, as run lengths are
  const shown = { masks: true, maps: false };
  const pressed = { masks: find("show-masks"), maps: find("show-maps") };
  let drawn = "";
  let uncertainty = null; // grey levels of the map that is loaded, row by row
  let loaded = -1;

  // COCO run lengths: groups of 5 bits, lowest first; from the fourth count on, the difference to the one two before.
  function fill(counts, label) {
    const runs = [];
    for (let at = 0; at < counts.length; ) {
      let value = 0, place = 0, code;
      do {
        code = counts.charCodeAt(at++) - 48;
        value |= (code & 31) << (5 * place++);
      } while (code & 32);
      if (code & 16) value |= -1 << (5 * place);
      runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    }
    let start = 0;
    runs.forEach((run, k) => {
      if (k % 2) labels.fill(label, start, start + run);
      start += run;
    });
  }

  // Index of the last time that is not after `time`; a thousandth of a second covers rounding.
  function indexAt(times, time) {
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= time + 0.001) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  function load(index) {
    loaded = index;
    const map = new Image();
    map.src = "data:image/png;base64," + data.maps[index];
    map.decode().then(() => {
      const scratch = document.createElement("canvas");
      scratch.width = width;
      scratch.height = height;
      const brush = scratch.getContext("2d");
      brush.drawImage(map, 0, 0, width, height);
      uncertainty = brush.getImageData(0, 0, width, height).data;
      drawn = "";
      draw(now());
    });
  }

  function draw(time) {
    const mask = data.masks.length ? indexAt(data.times, time) : -1;
    const map = shown.maps ? indexAt(data.mapTimes, time) : -1;
    if (map >= 0 && map !== loaded) load(map);
    const wanted = [shown.masks ? mask : -1, map, canvas.clientWidth].join();
    if (wanted === drawn) return;
    drawn = wanted;
    labels.fill(0);
    if (shown.masks && mask >= 0) {
      let stored = mask; // an equal mask is stored once
      while (data.masks[stored] === null) stored--;
      data.masks[stored].forEach(([label, counts]) => fill(counts, label));
    }
    paint(shown.maps ? uncertainty : null);
    context.putImageData(image, 0, 0);
    canvas.dataset.mask = shown.masks ? mask : -1;
  }

  // Tint inside a region, white and dark contour, stripes elsewhere; a contour is a pixel wide on the screen.
  function paint(grey) {
    const wide = Math.max(1, Math.round(width / (canvas.clientWidth || width)));
    const pixels = image.data;
    for (let x = 0, at = 0; x < width; x++) {
      for (let y = 0; y < height; y++, at++) {
        const label = labels[at], to = 4 * (y * width + x);
        const edge =
          (x >= wide && labels[at - wide * height] !== label) ||
          (x + wide < width && labels[at + wide * height] !== label) ||
          (y >= wide && labels[at - wide] !== label) ||
          (y + wide < height && labels[at + wide] !== label);
        let level = label ? 255 : 28, alpha = 0;
        if (edge) alpha = 255;
        else if (!label && grey) {
          alpha = STRIPES * grey[to];
          level = Math.floor((x + y) / STRIPE) % 2 ? 255 : 28;
        }
        if (label && !edge) {
          [pixels[to], pixels[to + 1], pixels[to + 2]] = data.colours[label];
          pixels[to + 3] = TINT;
        } else {
          pixels[to] = pixels[to + 1] = pixels[to + 2] = level;
          pixels[to + 3] = alpha;
        }
      }
    }
  }

  const now = () => Math.min(Math.max(video.currentTime, data.start), data.end);

  function refresh(time) {
    draw(time);
    const share = (time - data.start) / (data.end - data.start);
    line.style.left = 100 * share + "%";
    seek.value = time;
    seek.setAttribute("aria-valuetext", time.toFixed(1) + " seconds");
    find("clock").textContent = time.toFixed(1) + " / " + data.end.toFixed(1) + " s";
  }

  // The callback has the time of the picture on the screen; currentTime runs up to a picture ahead of it.
  function follow() {
    if (video.requestVideoFrameCallback) {
      const next = (_, picture) => {
        refresh(Math.min(Math.max(picture.mediaTime, data.start), data.end));
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
    } else {
      const next = () => {
        if (!video.paused) refresh(now());
        requestAnimationFrame(next);
      };
      requestAnimationFrame(next);
    }
    video.addEventListener("seeked", () => refresh(now()));
    video.addEventListener("ended", () => refresh(data.end));
  }

  function toggle(name) {
    if (pressed[name].hidden) return;
    shown[name] = !shown[name];
    pressed[name].setAttribute("aria-pressed", shown[name]);
    draw(now());
  }

  function playOrPause() {
    if (!video.paused) video.pause();
    else video.play().catch(fail);
  }

  function fail() {
    find("problem").textContent = video.currentSrc.startsWith("data:")
      ? "This browser cannot play the video (H.264)."
      : "The video cannot be played: page.mp4 must be in the folder of this page.";
    find("problem").hidden = false;
  }

  function keys(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "m") toggle("masks");
    else if (event.key === "u") toggle("maps");
    else if (event.key === " " && !/^(BUTTON|SUMMARY|A)$/.test(event.target.tagName)) {
      event.preventDefault();
      playOrPause();
    }
  }

  // The keys of a slider without steps move by a tenth of its range: a second is more useful.
  function move(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    video.currentTime = Math.min(Math.max(now() + by, data.start), data.end);
  }

  function start() {
    video.removeAttribute("controls");
    ["controls", "seek", "line"].forEach((id) => (find(id).hidden = false));
    seek.min = data.start;
    seek.max = data.end;
    seek.addEventListener("input", () => (video.currentTime = seek.value));
    seek.addEventListener("keydown", move);
    find("play").addEventListener("click", playOrPause);
    video.addEventListener("click", playOrPause);
    video.addEventListener("play", () => (find("play").textContent = "Pause"));
    video.addEventListener("pause", () => (find("play").textContent = "Play"));
    video.addEventListener("error", fail);
    if (video.error) fail();
    find("mute").addEventListener("click", () => {
      video.muted = !video.muted;
      find("mute").setAttribute("aria-pressed", video.muted);
    });
    find("show-masks").addEventListener("click", () => toggle("masks"));
    find("show-maps").addEventListener("click", () => toggle("maps"));
    find("full").addEventListener("click", () =>
      document.fullscreenElement ? document.exitFullscreen() : find("stage").requestFullscreen());
    find("full").hidden = !document.fullscreenEnabled;
    document.querySelectorAll("[data-seek]").forEach((button) =>
      button.addEventListener("click", () => (video.currentTime = button.dataset.seek)));
    document.addEventListener("keydown", keys);
    window.addEventListener("resize", () => draw(now()));
    follow();
    refresh(now());
  }

  start();
})();
