// Sends pictures one by one with their progress, and asks for the answers that are still to come.

const ASK_MS = 500; // an answer is on the page within a second of its verdict
const AT_ONCE = 3;

const drop = document.getElementById("drop");
const chosen = document.getElementById("picture");
const rows = document.getElementById("rows");
const none = document.getElementById("none");
const said = document.getElementById("uploads-said");
const blank = document.getElementById("row-sending");
const token = drop.querySelector("input[name=csrfmiddlewaretoken]").value;
const waiting = [];
let sending = 0;

function megabytes(bytes) {
  return bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MB` : `${(bytes / 2 ** 10).toFixed(1)} KB`;
}

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // of our own server, which escapes what others wrote
  return [...template.content.querySelectorAll("tr")];
}

function refuse(row, why) {
  row.className = "refused";
  const cell = row.querySelector("td:last-child");
  const words = document.createElement("span");
  words.className = "errors";
  words.textContent = why;
  cell.replaceChildren(words);
}

function add(files) {
  const all = [...files];
  const most = Number(drop.dataset.maxFiles);
  if (all.length > most) said.textContent = `Only the first ${most} of ${all.length} files are taken.`;
  none.hidden = none.hidden || all.length > 0;
  for (const file of all.slice(0, most)) {
    const row = blank.content.firstElementChild.cloneNode(true);
    row.querySelector(".name").textContent = file.name;
    rows.prepend(row);
    const limit = Number(drop.dataset.maxBytes);
    if (file.size > limit) refuse(row, `The picture is too large: it has ${megabytes(file.size)}, at most ${megabytes(limit)} are taken.`);
    else waiting.push([file, row]);
  }
  pump();
}

function pump() {
  while (sending < AT_ONCE && waiting.length) {
    sending += 1;
    send(...waiting.shift());
  }
}

function send(file, row) {
  const body = new FormData();
  body.append("picture", file, file.name);
  const request = new XMLHttpRequest(); // fetch() tells nothing of the progress of what it sends
  request.open("POST", drop.action);
  request.setRequestHeader("X-CSRFToken", token);
  request.setRequestHeader("X-Requested-With", "castline");
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) row.querySelector("progress").value = event.loaded / event.total;
  };
  request.onloadend = () => {
    sending -= 1;
    if (request.status === 429) {
      // More than a minute's share: this one goes again when there is room.
      waiting.push([file, row]);
      row.querySelector(".said").textContent = "waiting: too many pictures in this minute";
      setTimeout(pump, 1000 * Number(request.getResponseHeader("Retry-After") || 5));
      return;
    }
    const [answer] = (request.getResponseHeader("Content-Type") || "").startsWith("text/html") ? parsed(request.responseText) : [];
    if (answer) row.replaceWith(answer);
    else refuse(row, request.status === 413 ? "The picture is too large." : `The station did not answer (${request.status || "no connection"}). Send it again.`);
    pump();
  };
  request.send(body);
}

async function ask() {
  const open = [...rows.querySelectorAll("tr[data-open]")].slice(0, 100);
  if (open.length && !document.hidden) {
    const states = open.map((row) => `${row.dataset.number}.${row.dataset.state}`).join(",");
    try {
      const response = await fetch(`${drop.dataset.rows}?open=${states}`, { redirect: "error" });
      if (response.ok) {
        for (const row of parsed(`<table>${await response.text()}</table>`)) renew(row);
      }
    } catch { /* the station is away for a moment: asked again */ }
  }
  setTimeout(ask, ASK_MS);
}

function renew(row) {
  const old = document.getElementById(row.id);
  if (!old) return;
  const label = row.querySelector(".badge")?.textContent;
  if (label && !old.querySelector(".badge")) said.textContent = `${row.querySelector(".name").textContent.trim()}: ${label}`;
  const focused = old.contains(document.activeElement);
  old.replaceWith(row);
  if (focused) row.querySelector(".name a")?.focus();
}

drop.addEventListener("submit", (event) => {
  event.preventDefault();
  add(chosen.files);
  drop.reset();
});
chosen.addEventListener("change", () => {
  add(chosen.files);
  drop.reset();
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});
ask();
