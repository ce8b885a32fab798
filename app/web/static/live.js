"use strict";

// Keeps a page fresh: a server-sent event says that something changed, the page is fetched
// again, and the live regions are swapped, so that what a person is typing, has opened or has
// focused stays as it is. Reconnects after a lost connection, a restart and a sleep.
(() => {
  const button = document.getElementById("live-toggle");
  const status = document.getElementById("live-status");
  const POLL_MS = Number(button.dataset.seconds) * 1000;
  const SILENT_MS = 40_000;
  const PRESS_MS = 20_000; // how long a press delays the swap, where its release is not reported
  let paused = false;
  let source = null;
  let heard = 0;
  let timer = 0;
  let soon = 0;
  let busy = false;
  let again = false;
  let pressedAt = -Infinity;
  let delayed = false;

  // A region that is swapped between press and release takes the click away.
  const pressed = () => Date.now() - pressedAt < PRESS_MS;
  document.addEventListener("pointerdown", () => (pressedAt = Date.now()), true);
  for (const type of ["pointerup", "pointercancel"])
    document.addEventListener(type, () => {
      pressedAt = -Infinity;
      if (!delayed) return;
      delayed = false;
      later();
    }, true);

  const say = (text, look) => {
    if (status.textContent !== text) status.textContent = text;
    status.parentElement.classList.toggle("lost", look === "lost");
    status.parentElement.classList.toggle("paused", look === "paused");
  };

  const swap = (region, fresh) => {
    const open = [...region.querySelectorAll("details[id]")].map((one) => [one.id, one.open]);
    const typed = [...region.querySelectorAll("input[id], textarea[id]")].map(({ id, value }) => [id, value]);
    const active = document.activeElement;
    const focused = region.contains(active) ? active.id : "";
    const [from, to] = [active.selectionStart, active.selectionEnd];
    region.innerHTML = fresh.innerHTML;
    for (const [id, was] of open) {
      const one = document.getElementById(id);
      if (one) one.open = was;
    }
    for (const [id, value] of typed) {
      const field = document.getElementById(id);
      if (field) field.value = value;
    }
    const same = focused && document.getElementById(focused);
    if (!same) return;
    same.focus({ preventScroll: true });
    if (same.tagName === "INPUT") same.setSelectionRange(from, to);
  };

  const take = (page) => {
    const fresh = page.querySelectorAll("[data-live]");
    document.querySelectorAll("[data-live]").forEach((region, index) => {
      if (!fresh[index] || region.dataset.shown === fresh[index].innerHTML) return;
      region.dataset.shown = fresh[index].innerHTML;
      swap(region, fresh[index]);
    });
    document.title = page.title;
    document.dispatchEvent(new CustomEvent("heal:fresh"));
  };

  const refresh = async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (paused) return;
      delayed = pressed();
      if (delayed) return later(PRESS_MS);
      take(page);
      say("Live");
    } catch {
      if (!paused) say("No connection, trying again", "lost");
    } finally {
      busy = false;
      if (again) {
        again = false;
        later();
      }
    }
  };

  const later = (milliseconds = 150) => {
    clearTimeout(soon);
    soon = setTimeout(refresh, milliseconds);
  };

  const disconnect = () => {
    source?.close();
    source = null;
  };

  const connect = () => {
    disconnect();
    heard = Date.now();
    source = new EventSource("/v1/changes");
    const hear = (event) => {
      heard = Date.now();
      if (event.type !== "ping") later();
    };
    for (const type of ["open", "change", "ping"]) source.addEventListener(type, hear);
    source.addEventListener("error", () => later());
  };

  // A page that hears nothing asks by itself; one that hears of every change asks rarely.
  const tick = () => {
    clearTimeout(timer);
    if (paused) return;
    const silent = !source || source.readyState !== EventSource.OPEN || Date.now() - heard > SILENT_MS;
    if (!document.hidden && silent) {
      if (!source || source.readyState === EventSource.CLOSED || Date.now() - heard > SILENT_MS) connect();
      refresh();
    }
    timer = setTimeout(tick, POLL_MS);
  };

  const pause = (wanted) => {
    paused = wanted;
    button.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      clearTimeout(timer);
      clearTimeout(soon);
      disconnect();
      say("Paused", "paused");
    } else {
      say("Live");
      connect();
      refresh();
      timer = setTimeout(tick, POLL_MS);
    }
  };

  button.hidden = false;
  button.addEventListener("click", () => pause(!paused));
  window.addEventListener("offline", () => paused || say("No connection, trying again", "lost"));
  window.addEventListener("online", () => paused || (connect(), refresh()));
  document.addEventListener("visibilitychange", () => document.hidden || paused || (connect(), refresh()));
  window.addEventListener("pagehide", disconnect);
  connect();
  timer = setTimeout(tick, POLL_MS);
})();
