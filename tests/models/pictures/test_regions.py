"""The mask of the regions that people draw in a picture."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.pictures.regions import Regions, make_region_mask

LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
TOP_HALF = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))
shares = st.floats(0, 1)


def test_without_regions_the_whole_picture_is_inspected() -> None:
    assert make_region_mask((), (), 3, 5).all()


def test_regions_to_ignore_are_cut_out_of_regions_to_inspect() -> None:
    mask = make_region_mask([LEFT_HALF], [TOP_HALF], 4, 6)
    expected = np.zeros((4, 6), np.bool_)
    expected[2:, :3] = True
    assert mask.tolist() == expected.tolist()


def test_a_triangle_has_about_the_area_that_its_corners_give() -> None:
    assert abs(make_region_mask([((0, 0), (1, 0), (0, 1))], (), 200, 100).mean() - 0.5) < 0.01


@given(st.lists(st.tuples(shares, shares), min_size=3, max_size=8), st.integers(1, 40), st.integers(1, 40))
def test_any_polygon_gives_a_mask_of_the_pictures_size(corners: list[tuple[float, float]], rows: int, columns: int) -> None:
    inspected, ignored = make_region_mask([corners], (), rows, columns), make_region_mask((), [corners], rows, columns)
    assert inspected.shape == (rows, columns)
    assert (inspected == ~ignored).all()


def test_the_mask_of_a_reduced_picture_leaves_the_margins_out() -> None:
    mask = Regions(ignore=(TOP_HALF,)).make_square_mask(8, width_px=40, height_px=20)
    expected = np.zeros((8, 8), np.bool_)
    expected[4:6] = True
    assert mask.tolist() == expected.tolist()
