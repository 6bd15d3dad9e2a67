// The script of the report page: prints the report, and loads another report as soon as a person chooses another shift or line.

document.querySelector("[data-print]").addEventListener("click", () => window.print());
const form = document.querySelector("[data-report]");
for (const field of form.querySelectorAll("select")) field.addEventListener("change", () => form.requestSubmit());
