// Keyboard of the history: j and k choose a row, Enter opens the row, n shows older and p newer parts, / goes to the field "Part".

const rows = [...document.querySelectorAll(".parts tbody tr")];
let current = -1;

function choose(index) {
  if (!rows.length) return;
  rows[current]?.removeAttribute("data-current");
  current = Math.max(0, Math.min(rows.length - 1, index));
  const row = rows[current];
  row.setAttribute("data-current", "");
  row.querySelector("a.row").focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function follow(selector) {
  document.querySelector(selector)?.click();
}

const keys = {
  j: () => choose(current + 1),
  k: () => choose(current - 1),
  n: () => follow("a[rel=next]"),
  p: () => follow("a[rel=prev]"),
  "/": () => document.getElementById("f-part").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

// Hides a picture that is no longer kept, so that its place is empty.
for (const image of document.querySelectorAll(".parts .thumb img")) {
  const absent = () => image.classList.add("absent");
  image.addEventListener("error", absent);
  if (image.complete && !image.naturalWidth && image.currentSrc) absent();
}

// Disables empty fields while the form is sent, so that they do not appear in the URL.
document.getElementById("filters").addEventListener("submit", (event) => {
  for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
});
window.addEventListener("pageshow", () => {
  for (const field of document.getElementById("filters").elements) field.disabled = false;
});
