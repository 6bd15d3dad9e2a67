// The page of line settings: a person draws and corrects the regions of a line with the mouse, a pen, a finger or the keyboard.
// The coordinates of a corner are shares (0..1) of the picture's width and height, as in the records on Kafka.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = { inspect: "inspect", ignore: "ignore" };
const MIN_CORNERS = 3;
const MAX_CORNERS = 64;
const CORNER_SCREEN_PX = 6;
// A finger needs a larger area than the visible corner.
const TOUCH_SCREEN_PX = 15;
const STEP = 0.02;
const SMALL_STEP = 0.002;

const form = document.querySelector("[data-line-settings]");
const svg = form.querySelector("[data-drawing]");
const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
const fields = Object.fromEntries([...form.querySelectorAll("[data-regions]")].map((field) => [field.dataset.regions, field]));
const buttons = {
  close: form.querySelector("[data-close]"),
  delete: form.querySelector("[data-delete]"),
  undo: form.querySelector("[data-undo]"),
  draw: [...form.querySelectorAll("[data-draw]")],
};

// `regions` are the finished regions: { kind, corners }. `draft` is the region that is being drawn, or null. The arrow keys move a cross
// during drawing, and `cursor` is its place. `cursor` is null until an arrow key is pressed.
let regions = Object.keys(KINDS).flatMap((kind) => readField(fields[kind]).map((corners) => ({ kind, corners })));
let draft = null;
let cursor = null;
let selected = null; // index of the selected region
let corner = null; // index of the selected corner in this region
const earlier = []; // copies of regions and draft before each change, the newest last

function readField(field) {
  try {
    return JSON.parse(field.value);
  } catch {
    return [];
  }
}

function remember() {
  earlier.push(JSON.stringify({ regions, draft }));
}

function undo() {
  if (!earlier.length) return;
  ({ regions, draft } = JSON.parse(earlier.pop()));
  if (!draft) cursor = null;
  selected = corner = null;
  render();
}

function startDrawing(kind) {
  if (draft?.corners.length) remember();
  draft = draft?.kind === kind ? null : { kind, corners: [] };
  cursor = null;
  selected = corner = null;
  render();
  if (draft) svg.focus();
}

function addCorner(x, y) {
  if (draft.corners.length === MAX_CORNERS) return;
  remember();
  draft.corners.push([x, y]);
  render();
}

// Turns the draft into a region. Returns false if the draft has too few corners.
function closeDraft() {
  if (!draft || draft.corners.length < MIN_CORNERS) return false;
  remember();
  regions.push(draft);
  selected = regions.length - 1;
  draft = cursor = corner = null;
  render();
  return true;
}

function select(region, which = null) {
  selected = region;
  corner = which;
  render();
}

// Removes the selected corner. Without a selected corner, or if a region would have too few corners, removes the region.
function deleteSelected() {
  if (draft) {
    if (draft.corners.length) remember();
    draft.corners.pop();
  } else if (selected !== null) {
    remember();
    const corners = regions[selected].corners;
    if (corner !== null && corners.length > MIN_CORNERS) corners.splice(corner, 1);
    else {
      regions.splice(selected, 1);
      selected = null;
    }
    corner = null;
  }
  render();
}

const clamp = (value) => Math.round(Math.max(0, Math.min(1, value)) * 10000) / 10000;

// Moves one corner, or all corners by the same distance so that none leaves the picture.
function move(corners, which, x, y) {
  if (which !== null) {
    corners[which] = [clamp(corners[which][0] + x), clamp(corners[which][1] + y)];
    return;
  }
  const limit = (axis, by) => Math.max(-Math.min(...corners.map((one) => one[axis])), Math.min(1 - Math.max(...corners.map((one) => one[axis])), by));
  const [right, down] = [limit(0, x), limit(1, y)];
  for (const one of corners) [one[0], one[1]] = [clamp(one[0] + right), clamp(one[1] + down)];
}

function toShare(event) {
  const area = svg.getBoundingClientRect();
  return [clamp((event.clientX - area.left) / area.width), clamp((event.clientY - area.top) / area.height)];
}

svg.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  svg.focus();
  const { region, corner: which } = event.target.dataset;
  if (draft) {
    if (which === "0" && region === "draft" && closeDraft()) return;
    addCorner(...toShare(event));
    return;
  }
  if (region === undefined) {
    select(null);
    return;
  }
  select(Number(region), which === undefined ? null : Number(which));
  drag(event);
});

// Follows the pointer until it is released. The whole movement is one change, so Undo reverts it in one step.
function drag(event) {
  const before = JSON.stringify(regions[selected].corners);
  const from = toShare(event);
  let isMoved = false;
  const follow = (moved) => {
    const to = toShare(moved);
    if (!isMoved) remember();
    isMoved = true;
    regions[selected].corners = JSON.parse(before);
    move(regions[selected].corners, corner, to[0] - from[0], to[1] - from[1]);
    render();
  };
  svg.setPointerCapture(event.pointerId);
  svg.addEventListener("pointermove", follow);
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => svg.removeEventListener("pointermove", follow), { once: true });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function pressArrow([x, y], isSmall) {
  const step = isSmall ? SMALL_STEP : STEP;
  if (draft) {
    cursor ??= draft.corners.at(-1)?.slice() ?? [0.5, 0.5];
    cursor = [clamp(cursor[0] + x * step), clamp(cursor[1] + y * step)];
  } else if (selected !== null) {
    remember();
    move(regions[selected].corners, corner, x * step, y * step);
  }
  render();
}

const KEYS = {
  " ": () => draft && addCorner(...(cursor ??= [0.5, 0.5])),
  Enter: closeDraft,
  Delete: deleteSelected,
  Backspace: deleteSelected,
  n: () => selected !== null && select(selected, corner === null ? 0 : (corner + 1) % regions[selected].corners.length),
  Escape: () => {
    draft = cursor = null;
    select(null);
  },
};

svg.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = ARROWS[event.key] ? () => pressArrow(ARROWS[event.key], event.shiftKey) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey) || event.target.closest("input")) return;
  event.preventDefault();
  undo();
});

for (const button of buttons.draw) button.addEventListener("click", () => startDrawing(button.dataset.draw));
buttons.close.addEventListener("click", closeDraft);
buttons.delete.addEventListener("click", deleteSelected);
buttons.undo.addEventListener("click", undo);
form.addEventListener("submit", (event) => {
  if (!draft?.corners.length || closeDraft()) return;
  event.preventDefault();
  render(`The region that you are drawing has fewer than ${MIN_CORNERS} corners. Add corners, or press Undo, then save again.`);
});

function makeElement(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

const toPoints = (corners) => corners.map(([x, y]) => `${x * width},${y * height}`).join(" ");

// Returns a name for a region, such as "Region to ignore 2". The messages of the station use the same names.
function nameRegion(index) {
  const { kind } = regions[index];
  return `Region to ${kind} ${regions.slice(0, index + 1).filter((one) => one.kind === kind).length}`;
}

function makeCorners(corners, region, which) {
  const scale = svg.getBoundingClientRect().width / width || 1;
  return corners.flatMap(([x, y], index) => {
    const place = { cx: x * width, cy: y * height, "data-region": region, "data-corner": index };
    return [
      makeElement("circle", { ...place, r: CORNER_SCREEN_PX / scale, class: index === which ? "selected" : "" }),
      makeElement("circle", { ...place, r: TOUCH_SCREEN_PX / scale, class: "area" }),
    ];
  });
}

function makeCross([x, y]) {
  const size = 12 / (svg.getBoundingClientRect().width / width || 1);
  const [left, top] = [x * width, y * height];
  return [
    makeElement("line", { class: "cross", x1: left - size, x2: left + size, y1: top, y2: top }),
    makeElement("line", { class: "cross", x1: left, x2: left, y1: top - size, y2: top + size }),
  ];
}

function describeState() {
  if (draft) {
    const many = draft.corners.length;
    return `Drawing a region to ${draft.kind}: ${many} ${many === 1 ? "corner" : "corners"}.`;
  }
  if (selected === null) return regions.length ? "" : "No regions: the whole picture is inspected.";
  return `${nameRegion(selected)} is selected${corner === null ? "" : `, corner ${corner + 1} of ${regions[selected].corners.length}`}.`;
}

function render(sentence = describeState()) {
  for (const kind of Object.keys(KINDS)) fields[kind].value = JSON.stringify(regions.filter((one) => one.kind === kind).map((one) => one.corners));
  svg.classList.toggle("drawing", draft !== null);
  const shapes = regions.map(({ kind, corners }, index) =>
    makeElement("polygon", { class: `${kind}${index === selected ? " selected" : ""}`, points: toPoints(corners), ...(draft ? {} : { "data-region": index }) }),
  );
  const scale = svg.getBoundingClientRect().width / width || 1;
  const labels = regions.map(({ corners }, index) => {
    const top = corners.reduce((best, one) => (one[1] < best[1] ? one : best));
    const label = makeElement("text", { x: top[0] * width, y: top[1] * height + 18 / scale }, nameRegion(index).replace("Region to ", ""));
    label.style.fontSize = `${13 / scale}px`;
    label.style.strokeWidth = `${3 / scale}px`;
    return label;
  });
  const open = draft ? [makeElement("polyline", { class: draft.kind, points: toPoints(draft.corners) }), ...makeCorners(draft.corners, "draft", 0)] : [];
  const handles = selected !== null && !draft ? makeCorners(regions[selected].corners, selected, corner) : [];
  svg.replaceChildren(...shapes, ...labels, ...open, ...handles, ...(draft && cursor ? makeCross(cursor) : []));
  form.querySelector("[data-region-list]").replaceChildren(
    ...regions.map((_, index) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button quiet small";
      button.textContent = nameRegion(index);
      button.setAttribute("aria-pressed", String(index === selected));
      button.addEventListener("click", () => {
        draft = cursor = null;
        select(index);
        svg.focus();
      });
      item.append(button);
      return item;
    }),
  );
  for (const button of buttons.draw) button.setAttribute("aria-pressed", String(draft?.kind === button.dataset.draw));
  buttons.close.disabled = !draft || draft.corners.length < MIN_CORNERS;
  buttons.delete.disabled = draft ? !draft.corners.length : selected === null;
  buttons.undo.disabled = !earlier.length;
  const state = form.querySelector("[data-state]");
  if (state.textContent !== sentence) state.textContent = sentence;
}

render();
new ResizeObserver(() => render()).observe(svg);
