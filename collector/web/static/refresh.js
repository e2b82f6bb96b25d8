// Fetches this page again while somebody looks at it and puts in what is new, so that nothing jumps, blinks or loses the focus.
"use strict";

const main = document.getElementById("main");
const lost = document.getElementById("lost");

async function fetchAgain() {
  const query = new URLSearchParams(location.search);  // what was chosen on this page stays chosen
  query.set("lang", document.documentElement.lang.slice(0, 2));
  query.set("again", "");
  const answer = await fetch(`${location.pathname}?${query}`, { signal: AbortSignal.timeout(10000) }).catch(() => null);
  return answer && answer.status < 500 ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

function showLost(is) {
  if (lost.hidden !== is) return;
  lost.textContent = is ? `✕ ${lost.dataset.text}` : "";
  lost.hidden = !is;
}

function renew(page) {
  const fresh = page.getElementById("main");
  if (fresh.innerHTML === main.innerHTML.replaceAll(' open=""', "")) return;
  const opened = [...main.querySelectorAll("details[open]")].map((part) => part.id);
  const focused = main.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...main.querySelectorAll(focused.tagName)].indexOf(focused) : -1;
  main.replaceChildren(...fresh.childNodes);
  main.dataset.seconds = fresh.dataset.seconds;
  document.title = page.title;
  opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  if (place >= 0) main.querySelectorAll(focused.tagName)[place]?.focus({ preventScroll: true });
}

function schedule() {
  const seconds = Number(main.dataset.seconds);
  if (seconds) setTimeout(refresh, seconds * 1000);
}

async function refresh() {
  if (!document.hidden && getSelection().isCollapsed) {
    const page = await fetchAgain();
    showLost(page === null);
    if (page) renew(page);
  }
  schedule();
}

schedule();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
