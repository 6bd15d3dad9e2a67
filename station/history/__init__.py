"""The history pages: search and export of all archived parts, and the page of one part with its pictures."""
