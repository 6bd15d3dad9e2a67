// Shows a message if the browser has lost the connection to the station. If the station has lost the connection to Kafka, the message
// comes from the station in the event `status`.

// The station sends an event every two seconds, even if no card has changed.
const MAX_SILENCE_MS = 7000;
const status = document.getElementById("live-status");
let lastEventAt = Date.now();

function showError(sentence) {
  if (status.dataset.error === sentence) return;
  status.dataset.error = sentence;
  const paragraph = document.createElement("p");
  paragraph.className = "message error";
  paragraph.setAttribute("role", "alert");
  paragraph.textContent = sentence;
  status.replaceChildren(paragraph);
}

document.body.addEventListener("htmx:sseMessage", () => {
  lastEventAt = Date.now();
  status.dataset.error = "";
});

document.body.addEventListener("htmx:sseError", () => {
  showError("Cut off from the station. The page shows an earlier state and keeps trying to connect.");
});

setInterval(() => {
  if (Date.now() - lastEventAt > MAX_SILENCE_MS) {
    const since = new Date(lastEventAt).toLocaleTimeString([], { hour12: false });
    showError(`Cut off from the station since ${since}. The page shows the state at that time and keeps trying to connect.`);
  }
}, 1000);

// Hides a picture that cannot be loaded, because the browser would otherwise show its symbol for a broken picture.
document.body.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) event.target.classList.add("absent");
}, true);
