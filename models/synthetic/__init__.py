"""Castings that no camera has seen: a seeded renderer for the demo, the tests and the weights that the project ships."""

from models.synthetic.casting import SIDE_PX, Casting, render, series
from models.synthetic.defects import Kind

__all__ = ["SIDE_PX", "Casting", "Kind", "render", "series"]
