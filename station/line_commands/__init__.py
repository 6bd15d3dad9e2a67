"""The URLs to which pages send commands for the sorter of a line, and from which pages read the sorter's answers."""
