"""The addresses by which pages send commands to the sorter of a line, and read the sorter's answers."""
