// Sends each chosen picture in its own request, shows the progress, and asks the station for the verdicts that are still missing.

const POLL_EVERY_MS = 500;
const MAX_CONCURRENT = 3;
const MAX_POLLED_ROWS = 100;

const form = document.getElementById("drop");
const fileInput = document.getElementById("picture");
const rows = document.getElementById("rows");
const emptyNote = document.getElementById("none");
const announcement = document.getElementById("uploads-announcement");
const rowTemplate = document.getElementById("row-sending");
const csrfToken = form.querySelector("input[name=csrfmiddlewaretoken]").value;
const queue = [];
let activeRequests = 0;

function formatBytes(bytes) {
  return bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MB` : `${(bytes / 2 ** 10).toFixed(1)} KB`;
}

function parseRows(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // safe: the station's templates escape all text of other people
  return [...template.content.querySelectorAll("tr")];
}

function showRefusal(row, reason) {
  row.className = "refused";
  const cell = row.querySelector("td:last-child");
  const text = document.createElement("span");
  text.className = "errors";
  text.textContent = reason;
  cell.replaceChildren(text);
}

function addFiles(fileList) {
  const files = [...fileList];
  const maxFiles = Number(form.dataset.maxFiles);
  const maxBytes = Number(form.dataset.maxBytes);
  if (files.length > maxFiles) announcement.textContent = `Only the first ${maxFiles} of ${files.length} files are sent.`;
  emptyNote.hidden = emptyNote.hidden || files.length > 0;
  for (const file of files.slice(0, maxFiles)) {
    const row = rowTemplate.content.firstElementChild.cloneNode(true);
    row.querySelector(".name").textContent = file.name;
    rows.prepend(row);
    if (file.size > maxBytes) showRefusal(row, `The picture is too large: it has ${formatBytes(file.size)}, at most ${formatBytes(maxBytes)} are allowed.`);
    else queue.push([file, row]);
  }
  startRequests();
}

function startRequests() {
  while (activeRequests < MAX_CONCURRENT && queue.length) {
    activeRequests += 1;
    send(...queue.shift());
  }
}

function send(file, row) {
  const body = new FormData();
  body.append("picture", file, file.name);
  const request = new XMLHttpRequest(); // fetch() reports no upload progress
  request.open("POST", form.action);
  request.setRequestHeader("X-CSRFToken", csrfToken);
  request.setRequestHeader("X-Requested-With", "castline");
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) row.querySelector("progress").value = event.loaded / event.total;
  };
  request.onloadend = () => {
    activeRequests -= 1;
    if (request.status === 429) {
      // The account has reached its limit of pictures per minute, so the picture is sent again later.
      queue.push([file, row]);
      row.querySelector(".progress-text").textContent = "waiting, because this account has sent too many pictures in the last minute";
      setTimeout(startRequests, 1000 * Number(request.getResponseHeader("Retry-After") || 5));
      return;
    }
    const isHtml = (request.getResponseHeader("Content-Type") || "").startsWith("text/html");
    const [newRow] = isHtml ? parseRows(request.responseText) : [];
    if (newRow) row.replaceWith(newRow);
    else if (request.status === 413) showRefusal(row, "The picture is too large.");
    else showRefusal(row, `The station did not answer (${request.status || "no connection"}). Send the picture again.`);
    startRequests();
  };
  request.send(body);
}

async function poll() {
  const pending = [...rows.querySelectorAll("tr[data-open]")].slice(0, MAX_POLLED_ROWS);
  if (pending.length && !document.hidden) {
    const states = pending.map((row) => `${row.dataset.number}.${row.dataset.state}`).join(",");
    try {
      const response = await fetch(`${form.dataset.rows}?open=${states}`, { redirect: "error" });
      if (response.ok) {
        for (const row of parseRows(`<table>${await response.text()}</table>`)) replaceRow(row);
      }
    } catch { /* The next poll asks again. */ }
  }
  setTimeout(poll, POLL_EVERY_MS);
}

function replaceRow(row) {
  const previous = document.getElementById(row.id);
  if (!previous) return;
  const label = row.querySelector(".badge")?.textContent;
  if (label && !previous.querySelector(".badge")) announcement.textContent = `${row.querySelector(".name").textContent.trim()}: ${label}`;
  const hadFocus = previous.contains(document.activeElement);
  previous.replaceWith(row);
  if (hadFocus) row.querySelector(".name a")?.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  addFiles(fileInput.files);
  form.reset();
});
fileInput.addEventListener("change", () => {
  addFiles(fileInput.files);
  form.reset();
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    form.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  addFiles(event.dataTransfer.files);
});
poll();
