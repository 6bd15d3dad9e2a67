"""What is kept of every part: the table, how it is written, and which pictures stay."""
