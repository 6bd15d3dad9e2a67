// The picture of a part: switches boxes and heat map on and off, and shows a sentence if the picture is no longer kept.

const stage = document.querySelector("[data-stage]");
if (stage) {
  const layers = { boxes: stage.querySelector("[data-boxes]"), heat: stage.querySelector("[data-heat]") };
  const toggles = Object.fromEntries([...document.querySelectorAll("[data-toggle]")].map((one) => [one.dataset.toggle, one]));
  const show = () => {
    for (const [name, toggle] of Object.entries(toggles)) layers[name]?.toggleAttribute("hidden", !toggle.checked);
  };
  for (const toggle of Object.values(toggles)) toggle.addEventListener("change", show);
  document.addEventListener("keydown", (event) => {
    const toggle = { b: toggles.boxes, h: toggles.heat }[event.key];
    if (!toggle || event.ctrlKey || event.metaKey || event.altKey) return;
    toggle.checked = !toggle.checked;
    show();
  });
  show();

  const shot = stage.querySelector(".shot");
  const gone = () => {
    shot.hidden = true;
    layers.boxes?.setAttribute("hidden", "");
    stage.querySelector("[data-gone]").hidden = false;
  };
  shot.addEventListener("error", gone);
  if (shot.complete && !shot.naturalWidth) gone();
}
