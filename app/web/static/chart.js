"use strict";

// The chart of an incident: error rate and p95 latency with the SLO lines, marks of deploys and
// actions, and the soak window. Its data is the public API's; a change draws it again.
(() => {
  const place = document.getElementById("plot");
  const list = document.getElementById("marks");
  if (!place) return;
  let plot = null;
  let drawn = "";
  let known = null;
  const paper = matchMedia("print");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const seconds = (text) => Date.parse(text) / 1000;
  const hour = Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const exact = Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
  const percent = (value) => (value === null || value === undefined ? "–" : `${(value * 100).toFixed(1)}%`);
  const millis = (value) => (value === null || value === undefined ? "–" : `${Math.round(value)} ms`);

  const line = (u, y, scale, ink) => {
    if (y === null || y > u.scales[scale].max) return;
    const at = u.valToPos(y, scale, true);
    u.ctx.save();
    u.ctx.strokeStyle = ink;
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([6 * devicePixelRatio, 5 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(u.bbox.left, at);
    u.ctx.lineTo(u.bbox.left + u.bbox.width, at);
    u.ctx.stroke();
    u.ctx.restore();
  };

  const behind = (data) => (u) => {
    for (const soak of data.soaks) {
      const from = Math.max(u.bbox.left, u.valToPos(seconds(soak.since), "x", true));
      const to = Math.min(u.bbox.left + u.bbox.width, u.valToPos(seconds(soak.until ?? data.until), "x", true));
      u.ctx.fillStyle = colour("--soak");
      u.ctx.fillRect(from, u.bbox.top, Math.max(2, to - from), u.bbox.height);
    }
  };

  const above = (data) => (u) => {
    line(u, data.slo.max_error_rate, "%", colour("--errors"));
    line(u, data.slo.max_p95_latency_ms, "ms", colour("--latency"));
    u.ctx.save();
    u.ctx.font = `600 ${11 * devicePixelRatio}px system-ui, sans-serif`;
    u.ctx.textBaseline = "top";
    data.marks.forEach((mark, index) => {
      const x = u.valToPos(seconds(mark.at), "x", true);
      if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) return;
      u.ctx.fillStyle = colour("--mark");
      u.ctx.fillRect(x - devicePixelRatio, u.bbox.top, 2 * devicePixelRatio, u.bbox.height);
      u.ctx.fillText(String(index + 1), x + 4 * devicePixelRatio, u.bbox.top + ((index % 3) * 13 + 2) * devicePixelRatio);
    });
    u.ctx.restore();
  };

  const options = (data, width) => {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui, sans-serif" };
    const most = (all, limit) => Math.max(limit * 1.3, ...all.filter((value) => value !== null)) * 1.08;
    const gaps = { spanGaps: false, width: 2, points: { show: data.samples.length < 60, size: 5 } };
    return {
      width,
      height: 220,
      padding: [10, 6, 0, 0],
      scales: {
        x: { range: [seconds(data.since), seconds(data.until)] },
        "%": { range: () => [0, most(data.samples.map((one) => one.error_rate), data.slo.max_error_rate)] },
        ms: { range: () => [0, most(data.samples.map((one) => one.p95_latency_ms), data.slo.max_p95_latency_ms)] },
      },
      series: [
        { label: "Time", value: (u, x) => (x ? exact.format(x * 1000) : "–") },
        { label: "Error rate", scale: "%", stroke: colour("--errors"), value: (u, y) => percent(y), ...gaps },
        { label: "p95 latency", scale: "ms", stroke: colour("--latency"), value: (u, y) => millis(y), ...gaps },
      ],
      axes: [
        { ...axis, values: (u, all) => all.map((one) => hour.format(one * 1000)) },
        { ...axis, scale: "%", size: 48, values: (u, all) => all.map((one) => `${Math.round(one * 1000) / 10}%`) },
        { ...axis, scale: "ms", side: 1, size: 62, grid: { show: false }, values: (u, all) => all.map((one) => `${one} ms`) },
      ],
      hooks: { drawClear: [behind(data)], draw: [above(data)] },
    };
  };

  const showMarks = (data) => {
    list.replaceChildren(
      ...data.marks.map((mark, index) => {
        const item = document.createElement("li");
        const number = document.createElement("strong");
        number.textContent = String(index + 1);
        const at = document.createElement("time");
        at.dateTime = mark.at;
        at.dataset.as = "clock";
        const text = document.createElement("span");
        text.textContent = mark.text;
        item.append(number, at, text);
        return item;
      }),
    );
  };

  // What is drawn between press and release would move the page under the pointer, and take the click away.
  const PRESS_MS = 20_000;
  let pressedAt = -Infinity;
  let waiting = 0;
  document.addEventListener("pointerdown", () => (pressedAt = Date.now()), true);
  for (const type of ["pointerup", "pointercancel"])
    document.addEventListener(type, () => (pressedAt = -Infinity), true);

  const load = async () => {
    try {
      const answer = await fetch(place.dataset.source, { cache: "no-store" });
      if (!answer.ok) return;
      known = await answer.json();
    } catch {
      return;
    }
    draw();
  };

  const draw = () => {
    const data = known;
    if (data === null) return;
    clearTimeout(waiting);
    if (Date.now() - pressedAt < PRESS_MS) {
      waiting = setTimeout(draw, 200);
      return;
    }
    const same = JSON.stringify([data.samples, data.marks, data.soaks, paper.matches, dark.matches, place.clientWidth]);
    if (same === drawn) return;
    drawn = same;
    plot?.destroy();
    plot = null;
    place.classList.toggle("none", data.samples.length === 0);
    showMarks(data);
    document.dispatchEvent(new CustomEvent("heal:fresh:times"));
    if (data.samples.length === 0) {
      place.textContent = "No samples of error rate or latency are on record for this time.";
      return;
    }
    place.textContent = "";
    const columns = [
      data.samples.map((one) => seconds(one.at)),
      data.samples.map((one) => one.error_rate),
      data.samples.map((one) => one.p95_latency_ms),
    ];
    plot = new uPlot(options(data, place.clientWidth), columns, place);
    place.dataset.drawn = String(data.samples.length);
  };

  document.addEventListener("heal:fresh", load);
  dark.addEventListener("change", draw);
  paper.addEventListener("change", draw); // paper has the colours of the light theme
  let resized = 0;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(draw, 200);
  });
  load();
})();
