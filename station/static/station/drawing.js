// Boxes on a picture, which a person draws and corrects with the mouse, a pen, a finger or the keyboard.
// The coordinates of a box are pixels of the picture, not of the screen.

const SVG = "http://www.w3.org/2000/svg";
const MIN_DRAG_PX = 3;
const CORNER_SCREEN_PX = 10;

export class Drawing {
  // `onChange` is called after each change with all boxes and the selected box.
  constructor(svg, picture, onChange) {
    this.svg = svg;
    this.picture = picture;
    this.onChange = onChange;
    this.boxes = [];
    this.selected = null;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    this.width = width;
    this.height = height;
    this.kindOfNewBox = () => "";
    svg.addEventListener("pointerdown", (event) => this.#startDrag(event));
    this.place();
    this.resizeObserver = new ResizeObserver(() => this.place());
    this.resizeObserver.observe(picture);
  }

  place() {
    const shown = this.picture.getBoundingClientRect();
    const scale = Math.min(shown.width / this.width, shown.height / this.height) || 1;
    this.svg.setAttribute("width", this.width * scale);
    this.svg.setAttribute("height", this.height * scale);
    this.scale = scale;
    this.#render();
  }

  add(box, suggested = false) {
    const newBox = { kind: "", ...box, suggested };
    this.boxes.push(newBox);
    this.#notify();
    return newBox;
  }

  select(box) {
    this.selected = box;
    if (box) box.suggested = false;
    this.#notify();
  }

  remove(box = this.selected) {
    this.boxes = this.boxes.filter((other) => other !== box);
    if (this.selected === box) this.selected = null;
    this.#notify();
  }

  setKind(kind) {
    if (!this.selected) return false;
    this.selected.kind = this.selected.kind === kind ? "" : kind;
    this.#notify();
    return true;
  }

  acceptAll() {
    for (const box of this.boxes) box.suggested = false;
    this.#notify();
  }

  // Moves the selected box by (x, y) pixels, or changes its size by (x, y) pixels if `resize` is true.
  nudge(x, y, resize) {
    const box = this.selected;
    if (!box) return;
    if (resize) this.#set(box, box.left_px, box.top_px, box.width_px + x, box.height_px + y);
    else this.#set(box, box.left_px + x, box.top_px + y, box.width_px, box.height_px);
    this.#notify();
  }

  #set(box, left, top, width, height) {
    const clamp = (value, min, max) => Math.round(Math.max(min, Math.min(max, value)));
    box.width_px = clamp(width, 1, this.width);
    box.height_px = clamp(height, 1, this.height);
    box.left_px = clamp(left, 0, this.width - box.width_px);
    box.top_px = clamp(top, 0, this.height - box.height_px);
  }

  #toPicture(event) {
    const area = this.svg.getBoundingClientRect();
    return { x: (event.clientX - area.left) / this.scale, y: (event.clientY - area.top) / this.scale };
  }

  #startDrag(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    const group = event.target.closest("g");
    const from = this.#toPicture(event);
    let box = group ? this.boxes[Number(group.dataset.index)] : null;
    const resize = event.target.classList.contains("corner");
    const start = box && { ...box };
    if (box) this.select(box);
    const move = (moved) => {
      const to = this.#toPicture(moved);
      if (!start) {
        const x = [from.x, to.x].map((value) => Math.max(0, Math.min(this.width, value))).sort((a, b) => a - b);
        const y = [from.y, to.y].map((value) => Math.max(0, Math.min(this.height, value))).sort((a, b) => a - b);
        if (!box && (x[1] - x[0] < MIN_DRAG_PX || y[1] - y[0] < MIN_DRAG_PX)) return;
        box ??= this.add({ left_px: 0, top_px: 0, width_px: 1, height_px: 1, kind: this.kindOfNewBox() });
        this.selected = box;
        this.#set(box, x[0], y[0], x[1] - x[0], y[1] - y[0]);
      } else if (resize) {
        this.#set(box, start.left_px, start.top_px, start.width_px + to.x - from.x, start.height_px + to.y - from.y);
      } else {
        this.#set(box, start.left_px + to.x - from.x, start.top_px + to.y - from.y, start.width_px, start.height_px);
      }
      this.#notify();
    };
    const end = () => {
      this.svg.removeEventListener("pointermove", move);
      if (!box) this.select(null);
    };
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) this.svg.addEventListener(name, end, { once: true });
  }

  #notify() {
    this.#render();
    this.onChange(this.boxes, this.selected);
  }

  #render() {
    this.svg.replaceChildren(...this.boxes.map((box, index) => this.#makeGroup(box, index)));
  }

  #makeGroup(box, index) {
    const group = document.createElementNS(SVG, "g");
    group.dataset.index = index;
    if (box.suggested) group.classList.add("suggested");
    if (box === this.selected) group.classList.add("selected");
    group.append(this.#makeRect("body", box.left_px, box.top_px, box.width_px, box.height_px));
    const side = CORNER_SCREEN_PX / this.scale;
    group.append(this.#makeRect("corner", box.left_px + box.width_px - side / 2, box.top_px + box.height_px - side / 2, side, side));
    return group;
  }

  #makeRect(name, x, y, width, height) {
    const rect = document.createElementNS(SVG, "rect");
    rect.classList.add(name);
    for (const [key, value] of Object.entries({ x, y, width, height })) rect.setAttribute(key, value);
    return rect;
  }
}
