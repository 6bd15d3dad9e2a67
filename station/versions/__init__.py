"""The Models pages: figures of each model version, and which version judges which line."""
