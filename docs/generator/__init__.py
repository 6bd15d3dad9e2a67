"""One module for each kind of page that is written from the code; each gives the pages' texts by path below `docs/`."""
