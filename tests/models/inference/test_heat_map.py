"""Boxes around the hot areas of heat maps, in pixels of the original picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.inference.heat_map import crop_to_picture, find_boxes

SIDE_PX = 64


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, SIDE_PX - 1), st.integers(0, SIDE_PX - 1))
def test_a_box_lies_within_its_picture_whatever_the_shape_of_the_picture(width_px: int, height_px: int, row: int, column: int) -> None:
    heat = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    heat[row, column] = 0.8
    for box in find_boxes(crop_to_picture(heat, width_px, height_px), width_px, height_px):
        assert 0 <= box.left_px < box.left_px + box.width_px <= width_px
        assert 0 <= box.top_px < box.top_px + box.height_px <= height_px
        assert box.score == np.float32(0.8)


def test_the_hottest_box_comes_first_and_an_empty_map_has_no_box() -> None:
    heat = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    assert find_boxes(heat, 300, 300) == []
    heat[2:4, 2:4], heat[50:60, 40:44], heat[20, 20] = 0.7, 1.0, 0.3
    first, second = find_boxes(heat, 128, 128)
    assert (first.left_px, first.top_px, first.width_px, first.height_px, first.score) == (80, 100, 8, 20, 1.0)
    assert (second.left_px, second.top_px) == (4, 4)


@pytest.mark.parametrize("level", [0.5, None])
def test_a_map_without_a_hot_pixel_has_no_box(level: float | None) -> None:
    hottest = 0.0 if level is None else 0.49
    assert find_boxes(np.full((8, 8), hottest, np.float32), 128, 128, level) == []
