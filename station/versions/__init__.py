"""Model versions: their figures, and which of them judges which line."""
