"""The live pages: the wall with one card per line, and the page of each line."""
