"""The live pages: the wall, which shows a small card for each line, and the pages that show a single line."""
