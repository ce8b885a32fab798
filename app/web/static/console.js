"use strict";

// Times in the viewer's zone, ages and countdowns that run on, and the keys / j k ?.
(() => {
  const zone = Intl.DateTimeFormat(undefined, { timeZoneName: "short" });
  const short = Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const day = Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
  const long = Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
  const zoneOf = (at) => zone.formatToParts(at).find((part) => part.type === "timeZoneName")?.value ?? "";
  const utc = (at) => `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;

  // The format of `span` in app/durations.py.
  const span = (seconds) => {
    const whole = Math.max(0, Math.round(seconds));
    const two = (large, of, small, unit) => `${large} ${of}${small ? ` ${small} ${unit}` : ""}`;
    if (whole < 60) return `${whole} s`;
    const minutes = Math.floor(whole / 60);
    if (minutes < 60) return two(minutes, "m", whole % 60, "s");
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? two(hours, "h", minutes % 60, "m") : `${Math.floor(hours / 24)} days`;
  };

  const words = (one, at, now) => {
    switch (one.dataset.as) {
      case "age": return span((now - at) / 1000);
      case "ago": return `${span((now - at) / 1000)} ago`;
      case "left": return at > now ? `${span((at - now) / 1000)} left` : "expired";
      case "clock": return short.format(at);
      case "day": return day.format(at); // analytics counts days in UTC
      default: return `${long.format(at)} ${zoneOf(at)}`;
    }
  };

  // On a phone the row of pages scrolls: the page that is shown is within it.
  const here = document.querySelector(".top nav [aria-current]");
  const row = here?.parentElement;
  if (row && here.offsetLeft + here.offsetWidth > row.offsetLeft + row.clientWidth) {
    row.scrollLeft = here.offsetLeft - row.offsetLeft;
  }

  // The agent's clock counts, not the viewer's: they may differ.
  const skew = () => Date.parse(document.body.dataset.now) - Number(document.body.dataset.loaded);

  const show = () => {
    if (!document.body.dataset.loaded) document.body.dataset.loaded = String(Date.now());
    const now = Date.now() + skew();
    for (const one of document.querySelectorAll("time[data-as]")) {
      const at = new Date(one.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const text = words(one, at, now);
      if (one.textContent !== text) one.textContent = text;
      if (one.dataset.as !== "day" && one.title !== utc(at)) one.title = utc(at);
    }
  };

  const links = () => [...document.querySelectorAll("a[data-row]")];
  const move = (step) => {
    const all = links();
    if (!all.length) return;
    const here = all.indexOf(document.activeElement);
    const next = here < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, here + step));
    all[next].focus();
    all[next].scrollIntoView({ block: "nearest" });
  };

  const help = document.getElementById("keys");
  document.getElementById("keys-open")?.addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || help?.open) return;
    const search = document.getElementById("q");
    if (event.key === "/" && search) search.focus();
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "?" && help) help.showModal();
    else return;
    event.preventDefault();
  });

  for (const name of ["heal:fresh", "heal:fresh:times"]) document.addEventListener(name, show);
  const printing = () => {
    for (const one of document.querySelectorAll("[data-print]")) one.hidden = false;
  };
  document.addEventListener("heal:fresh", printing);
  printing();
  document.addEventListener("click", async (event) => {
    if (event.target.closest("[data-print]")) {
      window.print();
      return;
    }
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    await navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "Copied";
  });
  show();
  setInterval(show, 1000);
})();
