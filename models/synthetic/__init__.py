"""Renders pictures of castings with known defects, for the demo, the tests and the shipped model version."""

from models.synthetic.casting import SIDE_PX, RenderedCasting, render_casting, render_series, write_castings
from models.synthetic.defects import DefectKind

__all__ = ["SIDE_PX", "DefectKind", "RenderedCasting", "render_casting", "render_series", "write_castings"]
