"""The live pages: the wall, which shows a card for each line, and a page of its own for each line."""
