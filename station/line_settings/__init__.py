"""The page on which people change the settings of a running line: its regions, scale, threshold and share of defects."""
