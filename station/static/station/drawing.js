// Boxes on a picture, drawn and corrected by mouse, pen, finger or keyboard. Coordinates are pixels of the picture.

const SVG = "http://www.w3.org/2000/svg";
const LEAST_PX = 3; // a smaller drag was a click
const CORNER_PX = 10; // on the screen

export class Drawing {
  // `changed` is called with all boxes after each change.
  constructor(svg, picture, changed) {
    this.svg = svg;
    this.picture = picture;
    this.changed = changed;
    this.boxes = [];
    this.chosen = null;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    this.width = width;
    this.height = height;
    this.kind = () => "";
    svg.addEventListener("pointerdown", (event) => this.#begin(event));
    this.place();
    this.watcher = new ResizeObserver(() => this.place());
    this.watcher.observe(picture);
  }

  // Lays the drawing exactly over what the browser shows of the picture.
  place() {
    const shown = this.picture.getBoundingClientRect();
    const scale = Math.min(shown.width / this.width, shown.height / this.height) || 1;
    this.svg.setAttribute("width", this.width * scale);
    this.svg.setAttribute("height", this.height * scale);
    this.scale = scale;
    this.#show();
  }

  add(box, suggested = false) {
    const added = { kind: "", ...box, suggested };
    this.boxes.push(added);
    this.#tell();
    return added;
  }

  choose(box) {
    this.chosen = box;
    if (box) box.suggested = false;
    this.#tell();
  }

  remove(box = this.chosen) {
    this.boxes = this.boxes.filter((one) => one !== box);
    if (this.chosen === box) this.chosen = null;
    this.#tell();
  }

  setKind(kind) {
    if (!this.chosen) return false;
    this.chosen.kind = this.chosen.kind === kind ? "" : kind;
    this.#tell();
    return true;
  }

  acceptAll() {
    for (const box of this.boxes) box.suggested = false;
    this.#tell();
  }

  // Moves the chosen box, or changes its size.
  nudge(x, y, resize) {
    const box = this.chosen;
    if (!box) return;
    if (resize) this.#set(box, box.left_px, box.top_px, box.width_px + x, box.height_px + y);
    else this.#set(box, box.left_px + x, box.top_px + y, box.width_px, box.height_px);
    this.#tell();
  }

  #set(box, left, top, width, height) {
    const clamp = (value, least, most) => Math.round(Math.max(least, Math.min(most, value)));
    box.width_px = clamp(width, 1, this.width);
    box.height_px = clamp(height, 1, this.height);
    box.left_px = clamp(left, 0, this.width - box.width_px);
    box.top_px = clamp(top, 0, this.height - box.height_px);
  }

  #at(event) {
    const area = this.svg.getBoundingClientRect();
    return { x: (event.clientX - area.left) / this.scale, y: (event.clientY - area.top) / this.scale };
  }

  #begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    const group = event.target.closest("g");
    const from = this.#at(event);
    let box = group ? this.boxes[Number(group.dataset.index)] : null;
    const resize = event.target.classList.contains("corner");
    const start = box && { ...box };
    if (box) this.choose(box);
    const move = (moved) => {
      const to = this.#at(moved);
      if (!start) {
        const x = [from.x, to.x].map((value) => Math.max(0, Math.min(this.width, value))).sort((a, b) => a - b);
        const y = [from.y, to.y].map((value) => Math.max(0, Math.min(this.height, value))).sort((a, b) => a - b);
        if (!box && (x[1] - x[0] < LEAST_PX || y[1] - y[0] < LEAST_PX)) return;
        box ??= this.add({ left_px: 0, top_px: 0, width_px: 1, height_px: 1, kind: this.kind() });
        this.chosen = box;
        this.#set(box, x[0], y[0], x[1] - x[0], y[1] - y[0]);
      } else if (resize) {
        this.#set(box, start.left_px, start.top_px, start.width_px + to.x - from.x, start.height_px + to.y - from.y);
      } else {
        this.#set(box, start.left_px + to.x - from.x, start.top_px + to.y - from.y, start.width_px, start.height_px);
      }
      this.#tell();
    };
    const end = () => {
      this.svg.removeEventListener("pointermove", move);
      if (!box) this.choose(null);
    };
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) this.svg.addEventListener(name, end, { once: true });
  }

  #tell() {
    this.#show();
    this.changed(this.boxes, this.chosen);
  }

  #show() {
    this.svg.replaceChildren(...this.boxes.map((box, index) => this.#group(box, index)));
  }

  #group(box, index) {
    const group = document.createElementNS(SVG, "g");
    group.dataset.index = index;
    if (box.suggested) group.classList.add("suggested");
    if (box === this.chosen) group.classList.add("chosen");
    group.append(this.#rect("body", box.left_px, box.top_px, box.width_px, box.height_px));
    const side = CORNER_PX / this.scale;
    group.append(this.#rect("corner", box.left_px + box.width_px - side / 2, box.top_px + box.height_px - side / 2, side, side));
    return group;
  }

  #rect(name, x, y, width, height) {
    const rect = document.createElementNS(SVG, "rect");
    rect.classList.add(name);
    for (const [key, value] of Object.entries({ x, y, width, height })) rect.setAttribute(key, value);
    return rect;
  }
}
