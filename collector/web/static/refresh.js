// Fetches this page again while somebody looks at it and swaps its main part, so that nothing jumps or blinks.
"use strict";
const EVERY_MS = 10000;
async function refresh() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer || !answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
  const shown = document.getElementById("main");
  if (!fresh || fresh.innerHTML === shown.innerHTML) return;
  const open = [...shown.querySelectorAll("details")].map((part) => part.open);
  shown.replaceChildren(...fresh.childNodes);
  shown.querySelectorAll("details").forEach((part, place) => { part.open = open[place] ?? false; });
}
setInterval(refresh, EVERY_MS);
