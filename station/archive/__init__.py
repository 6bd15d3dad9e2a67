"""The archive contains the table of parts, the writer of its rows, and the retention of pictures."""
