// Prints the report; a new choice shows it at once.

document.querySelector("[data-print]").addEventListener("click", () => window.print());
const form = document.querySelector("[data-report]");
for (const field of form.querySelectorAll("select")) field.addEventListener("change", () => form.requestSubmit());
