"""The archive: the table of parts, the code that writes its rows, and the rules for how long pictures are kept."""
