"""The page on which people set a line while it runs: its regions, scale, threshold and share of defects."""
