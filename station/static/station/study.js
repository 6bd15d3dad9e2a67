// The page on which a person labels the parts of a study: the keys o, d and u press the buttons.

const press = (selector) => document.querySelector(selector)?.click();
const KEYS = { o: ".decision.ok", d: ".decision.defect", u: "[data-take-back] button" };

document.addEventListener("keydown", (event) => {
  // A repeated key is ignored, because a key that is held down would otherwise label one part after the other.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  press(KEYS[event.key]);
});

// Only the first click on a button counts, because the second one would label the next part.
for (const form of document.querySelectorAll("[data-answer], [data-take-back]")) {
  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) event.preventDefault();
    isSent = true;
  });
}
