// The script of the review page. A key or a button sends a decision, and the answer contains the next part. The script has already loaded
// the picture of this part. If the station refuses a decision, the part, its boxes and its types of defect stay on the page.

import { Drawing } from "./drawing.js";

const container = document.getElementById("review");
let drawing = null;
let preloaded = null;

const getForm = () => container.querySelector("[data-form]");

function prepare() {
  const form = getForm();
  drawing = null;
  if (!form) return;
  const picture = container.querySelector(".shot");
  const showDeleted = () => {
    picture.hidden = true;
    container.querySelector("[data-gone]").hidden = false;
    container.querySelector("[data-drawing]").setAttribute("hidden", "");
  };
  picture.addEventListener("error", showDeleted);
  if (picture.complete && !picture.naturalWidth) showDeleted();
  drawing = new Drawing(container.querySelector("[data-drawing]"), picture, showBoxes);
  drawing.kindOfNewBox = () => {
    const checked = form.querySelectorAll("[data-kind]:checked");
    return checked.length === 1 ? checked[0].value : "";
  };
  for (const box of JSON.parse(document.getElementById("suggested").textContent)) drawing.add(box, true);
  picture.addEventListener("load", () => drawing?.place());
  if (form.dataset.next) {
    preloaded = new Image();
    preloaded.src = form.dataset.next;
  }
}

// Shows the boxes as a list below the picture, which the keyboard and a screen reader can reach.
function showBoxes(boxes, selected) {
  const field = container.querySelector("[data-boxes-field]");
  field.value = JSON.stringify(
    boxes.filter((box) => !box.suggested).map(({ left_px, top_px, width_px, height_px, kind }) => ({ left_px, top_px, width_px, height_px, kind })),
  );
  container.querySelector("[data-box-list]").replaceChildren(
    ...boxes.map((box, index) => {
      const item = document.createElement("li");
      const title = `${box.kind || "box"} ${index + 1}${box.suggested ? " (suggested)" : ""}`;
      item.append(
        makeButton(title, () => drawing.select(box), { "aria-pressed": String(box === selected) }),
        makeButton("×", () => drawing.remove(box), { "aria-label": `Remove ${title}` }),
      );
      return item;
    }),
  );
}

function makeButton(text, action, attributes) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet small";
  button.textContent = text;
  for (const [name, value] of Object.entries(attributes)) button.setAttribute(name, value);
  button.addEventListener("click", action);
  return button;
}

async function post(address, fields, form) {
  if (form.getAttribute("aria-busy") === "true") return;
  form.setAttribute("aria-busy", "true");
  const trouble = container.querySelector("[data-trouble]");
  trouble.hidden = true;
  try {
    const response = await fetch(address, { method: "POST", body: fields, headers: { "HX-Request": "true" }, redirect: "error" });
    const text = await response.text();
    if (!response.ok) throw new Error(response.headers.get("content-type").startsWith("text/plain") ? text : `The station answered ${response.status}.`);
    container.innerHTML = text;
    window.htmx.process(container);
    prepare();
  } catch (error) {
    trouble.textContent = error instanceof TypeError ? "The station does not answer. Your decision was not sent, but your boxes are still here. Try again." : error.message;
    trouble.hidden = false;
    form.removeAttribute("aria-busy");
  }
}

function decide(label) {
  const form = getForm();
  if (!form) return;
  const fields = new FormData(form);
  fields.set("label", label);
  post(form.action, fields, form);
}

function undo() {
  const form = container.querySelector("[data-undo]");
  if ("enabled" in form.dataset) post(form.action, new FormData(form), form);
}

container.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.matches("[data-undo]")) undo();
  else if (event.target.matches("[data-begin]")) post(event.target.action, new FormData(event.target), event.target);
  else if (event.submitter?.value) decide(event.submitter.value);
});

container.addEventListener("change", (event) => {
  // A type that is checked while a box without a type is selected also becomes the type of that box.
  if (event.target.matches("[data-kind]") && event.target.checked && drawing?.selected && !drawing.selected.kind) drawing.setKind(event.target.value);
});

function toggleKind(number) {
  const checkbox = container.querySelector(`[data-kind="${number}"]`);
  if (!checkbox) return;
  if (drawing?.selected) {
    drawing.setKind(checkbox.value);
    if (drawing.selected.kind) checkbox.checked = true;
  } else checkbox.checked = !checkbox.checked;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  o: () => decide("ok"),
  d: () => decide("defect"),
  s: () => decide("skip"),
  u: undo,
  a: () => drawing?.acceptAll(),
  b: () => container.querySelector("[data-drawing]")?.toggleAttribute("hidden"),
  h: () => container.querySelector("[data-heat]")?.toggleAttribute("hidden"),
  Delete: () => drawing?.remove(),
  Backspace: () => drawing?.remove(),
  Escape: () => drawing?.select(null),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  const arrow = ARROWS[event.key];
  if (arrow && drawing?.selected) {
    event.preventDefault();
    drawing.nudge(arrow[0], arrow[1], event.shiftKey);
  } else if (/^[1-9]$/.test(event.key)) {
    toggleKind(event.key);
  } else if (KEYS[event.key]) {
    event.preventDefault();
    // A repeated key is ignored, because a key that is held down would otherwise decide about one part after the other.
    if (!event.repeat) KEYS[event.key]();
  }
});

prepare();
