"""The report pages: the figures of a shift or a day, on the screen or printed on one sheet of paper."""
