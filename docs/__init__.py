"""The published documents, and what writes those of them that the code decides."""
