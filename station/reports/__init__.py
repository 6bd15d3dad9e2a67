"""Reports of a shift or a day, for the screen and for one printed sheet."""
