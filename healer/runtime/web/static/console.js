// Keeps ages current, keeps opened rows open, opens the one that the address names, and says so when healer no longer answers: a page that has lost its
// source must not go on looking healthy.
"use strict";

(() => {
  let offset = 0; // of healer's clock against this browser's, in milliseconds
  let contact = Date.now();
  const open = new Set();

  const distance = (ms) => {
    const seconds = Math.floor(Math.abs(ms) / 1000);
    const units = [["d", 86400], ["h", 3600], ["min", 60]];
    const [unit, length] = units.find(([, length]) => seconds >= 2 * length) || ["s", 1];
    const text = `${Math.floor(seconds / length)} ${unit}`;
    return ms >= 0 ? `${text} ago` : `in ${text}`;
  };

  const tick = () => {
    const now = Date.now() + offset;
    for (const time of document.querySelectorAll("#live time[datetime]")) {
      time.textContent = distance(now - Date.parse(time.dateTime));
    }
    document.getElementById("contact").textContent = distance(Date.now() - contact);
  };

  const heard = (request) => {
    const theirs = Date.parse(request.getResponseHeader("X-Healer-Now") || "");
    if (!Number.isNaN(theirs)) offset = theirs - Date.now();
    contact = Date.now();
  };

  const lost = (isLost) => {
    document.getElementById("lost").hidden = !isLost;
    document.body.classList.toggle("is-lost", isLost);
  };

  document.addEventListener("htmx:afterRequest", (event) => {
    const ok = event.detail.successful === true;
    if (ok) heard(event.detail.xhr);
    lost(!ok);
  });
  document.addEventListener("htmx:beforeSwap", () => {
    open.clear();
    for (const details of document.querySelectorAll("#live details[open][id]")) open.add(details.id);
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    tick();
  });
  const unfold = () => document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
  addEventListener("hashchange", unfold);
  document.addEventListener("DOMContentLoaded", () => {
    unfold();
    const live = document.getElementById("live");
    offset = Date.parse(live.dataset.now) - Date.now();
    tick();
    setInterval(tick, 1000);
  });
})();
