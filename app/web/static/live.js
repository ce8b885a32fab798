"use strict";

// Fetches this page again and swaps the live region, so that what a person is
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
    const focused = region.contains(document.activeElement) ? document.activeElement.id : "";
    region.innerHTML = fresh.innerHTML;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const region = document.querySelector("[data-live]");
      const fresh = page.querySelector("[data-live]");
      if (paused) return;
      if (region && fresh && region.innerHTML !== fresh.innerHTML) swap(region, fresh);
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
