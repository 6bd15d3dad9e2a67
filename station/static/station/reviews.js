// The review bench: keys decide, the answer brings the next part, whose picture was fetched meanwhile.
// A decision that the station does not take stays on the page, marks and all.

import { Drawing } from "./drawing.js";

const bench = document.getElementById("bench");
let drawing = null;
let ahead = null;

const form = () => bench.querySelector("[data-form]");

function prepare() {
  const found = form();
  drawing = null;
  if (!found) return;
  const picture = bench.querySelector(".shot");
  const gone = () => {
    picture.hidden = true;
    bench.querySelector("[data-gone]").hidden = false;
    bench.querySelector("[data-drawing]").setAttribute("hidden", "");
  };
  picture.addEventListener("error", gone);
  if (picture.complete && !picture.naturalWidth) gone();
  drawing = new Drawing(bench.querySelector("[data-drawing]"), picture, list);
  drawing.kind = () => {
    const checked = found.querySelectorAll("[data-kind]:checked");
    return checked.length === 1 ? checked[0].value : "";
  };
  for (const box of JSON.parse(document.getElementById("suggested").textContent)) drawing.add(box, true);
  picture.addEventListener("load", () => drawing?.place());
  if (found.dataset.next) {
    ahead = new Image();
    ahead.src = found.dataset.next;
  }
}

// The list of boxes below the picture is what the keyboard and a screen reader work with.
function list(boxes, chosen) {
  const field = bench.querySelector("[data-boxes-field]");
  field.value = JSON.stringify(
    boxes.filter((box) => !box.suggested).map(({ left_px, top_px, width_px, height_px, kind }) => ({ left_px, top_px, width_px, height_px, kind })),
  );
  bench.querySelector("[data-box-list]").replaceChildren(
    ...boxes.map((box, index) => {
      const item = document.createElement("li");
      const words = `${box.kind || "box"} ${index + 1}${box.suggested ? " (found)" : ""}`;
      item.append(
        button(words, () => drawing.choose(box), { "aria-pressed": String(box === chosen) }),
        button("×", () => drawing.remove(box), { "aria-label": `Remove ${words}` }),
      );
      return item;
    }),
  );
}

function button(words, act, attributes) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "button quiet small";
  made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.addEventListener("click", act);
  return made;
}

async function post(address, fields, busy) {
  if (busy.getAttribute("aria-busy") === "true") return;
  busy.setAttribute("aria-busy", "true");
  const trouble = bench.querySelector("[data-trouble]");
  trouble.hidden = true;
  try {
    const answer = await fetch(address, { method: "POST", body: fields, headers: { "HX-Request": "true" }, redirect: "error" });
    const text = await answer.text();
    if (!answer.ok) throw new Error(answer.headers.get("content-type").startsWith("text/plain") ? text : `The station answered ${answer.status}.`);
    bench.innerHTML = text;
    prepare();
  } catch (error) {
    trouble.textContent = error instanceof TypeError ? "The station does not answer. Your marks are still here: try again." : error.message;
    trouble.hidden = false;
    busy.removeAttribute("aria-busy");
  }
}

function decide(label) {
  const found = form();
  if (!found) return;
  const fields = new FormData(found);
  fields.set("label", label);
  post(found.action, fields, found);
}

function undo() {
  const found = bench.querySelector("[data-undo]");
  if ("may" in found.dataset) post(found.action, new FormData(found), found);
}

bench.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.matches("[data-undo]")) undo();
  else if (event.submitter?.value) decide(event.submitter.value);
});

bench.addEventListener("change", (event) => {
  // A type given while a box is chosen is also that box's.
  if (event.target.matches("[data-kind]") && event.target.checked && drawing?.chosen && !drawing.chosen.kind) drawing.setKind(event.target.value);
});

function kind(number) {
  const box = bench.querySelector(`[data-kind="${number}"]`);
  if (!box) return;
  if (drawing?.chosen) {
    drawing.setKind(box.value);
    if (drawing.chosen.kind) box.checked = true;
  } else box.checked = !box.checked;
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const keys = {
  o: () => decide("ok"),
  d: () => decide("defect"),
  s: () => decide("skip"),
  u: undo,
  a: () => drawing?.acceptAll(),
  b: () => bench.querySelector("[data-drawing]")?.toggleAttribute("hidden"),
  h: () => bench.querySelector("[data-heat]")?.toggleAttribute("hidden"),
  Delete: () => drawing?.remove(),
  Backspace: () => drawing?.remove(),
  Escape: () => drawing?.choose(null),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  const step = STEPS[event.key];
  if (step && drawing?.chosen) {
    event.preventDefault();
    drawing.nudge(step[0], step[1], event.shiftKey);
  } else if (/^[1-9]$/.test(event.key)) {
    kind(event.key);
  } else if (keys[event.key]) {
    // Held down, a key would decide part after part.
    event.preventDefault();
    if (!event.repeat) keys[event.key]();
  }
});

prepare();
