"use strict";

// Fetches this page again and swaps the live regions, so that what a person is
// typing, has opened or has focused stays as it is. Can be paused.
(() => {
  const button = document.getElementById("live-toggle");
  const status = document.getElementById("live-status");
  const seconds = Number(button.dataset.seconds);
  let paused = false;
  let timer = 0;

  const say = (text) => {
    if (status.textContent !== text) status.textContent = text;
  };

  const swap = (region, fresh) => {
    const open = [...region.querySelectorAll("details[open]")].map((one) => one.id);
    const typed = [...region.querySelectorAll("input[id]")].map(({ id, value }) => [id, value]);
    const active = document.activeElement;
    const focused = region.contains(active) ? active.id : "";
    const [from, to] = [active.selectionStart, active.selectionEnd];
    region.innerHTML = fresh.innerHTML;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, value] of typed) {
      const field = document.getElementById(id);
      if (field) field.value = value;
    }
    const again = focused && document.getElementById(focused);
    if (!again) return;
    again.focus({ preventScroll: true });
    if (again.tagName === "INPUT") again.setSelectionRange(from, to);
  };

  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelectorAll("[data-live]");
      if (paused) return;
      document.querySelectorAll("[data-live]").forEach((region, index) => {
        if (fresh[index] && region.innerHTML !== fresh[index].innerHTML) swap(region, fresh[index]);
      });
      document.title = page.title;
      say("Live");
      if (!page.getElementById("live-toggle")) {
        button.hidden = true;
        say("Ended");
        return;
      }
    } catch {
      say("No connection, trying again");
    }
    schedule();
  };

  const schedule = () => {
    clearTimeout(timer);
    if (!paused) timer = setTimeout(document.hidden ? schedule : refresh, seconds * 1000);
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    say(paused ? "Paused" : "Live");
    schedule();
  });
  schedule();
})();
