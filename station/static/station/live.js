// Says when the page is cut off from the station. That the station is cut off from Kafka it says itself, in the event `status`.

const SILENT_MS = 7000; // the station speaks every two seconds
const status = document.getElementById("live-status");
let heardAt = Date.now();

function say(sentence) {
  if (status.dataset.said === sentence) return;
  status.dataset.said = sentence;
  const paragraph = document.createElement("p");
  paragraph.className = "message error";
  paragraph.setAttribute("role", "alert");
  paragraph.textContent = sentence;
  status.replaceChildren(paragraph);
}

document.body.addEventListener("htmx:sseMessage", () => {
  heardAt = Date.now();
  status.dataset.said = "";
});

document.body.addEventListener("htmx:sseError", () => {
  say("Cut off from the station: what is shown is not of now. Trying again.");
});

setInterval(() => {
  if (Date.now() - heardAt > SILENT_MS) {
    const since = new Date(heardAt).toLocaleTimeString([], { hour12: false });
    say(`Cut off from the station since ${since}: what is shown is not of now. Trying again.`);
  }
}, 1000);

// A picture that cannot be had leaves its place empty instead of showing a broken one.
document.body.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) event.target.classList.add("absent");
}, true);
