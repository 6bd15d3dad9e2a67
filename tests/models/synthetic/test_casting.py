"""Rendered castings are the same for the same seed, and masks show the defects."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.synthetic import SIDE_PX, DefectKind, render_casting, render_series, write_castings
from models.synthetic.large_casting import SMALL_KINDS, render_large_casting


def test_the_same_seed_draws_the_same_castings_and_another_draws_others() -> None:
    first, again, other = (list(render_series(4, seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(a.pixels, b.pixels) and a.kinds == b.kinds for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, other, strict=True))


def test_a_casting_does_not_depend_on_how_many_are_drawn() -> None:
    assert np.array_equal(list(render_series(3, 5))[2].pixels, list(render_series(9, 5))[2].pixels)


def test_a_good_casting_has_an_empty_mask() -> None:
    casting = render_casting(np.random.default_rng(1), ())
    assert casting.is_ok
    assert casting.mask.max() == 0
    assert casting.pixels.shape == (SIDE_PX, SIDE_PX)


@pytest.mark.parametrize("kind", list(DefectKind))
def test_every_defect_is_visible_and_its_mask_shows_where(kind: DefectKind) -> None:
    """Compares with the same casting without the defect, because the same seed gives the same view and surface."""
    for seed in range(8):
        casting = render_casting(np.random.default_rng(seed), (kind,))
        inside = casting.mask == kind
        assert inside.sum() >= 6, f"{kind.text}, seed {seed}"
        good = render_casting(np.random.default_rng(seed), ())
        changed = np.abs(casting.pixels.astype(int) - good.pixels)
        assert changed[inside].mean() > 2.5 * changed[~inside].mean(), f"{kind.text}, seed {seed}"


def test_about_the_given_share_is_defective() -> None:
    assert all(casting.is_ok for casting in render_series(5, 1, defect_share=0))
    assert not any(casting.is_ok for casting in render_series(5, 1, defect_share=1))


def test_a_series_is_written_in_class_folders_with_masks_and_a_list(tmp_path: Path) -> None:
    counts = write_castings(tmp_path / "a", 12, seed=7)
    write_castings(tmp_path / "b", 12, seed=7)
    assert sum(counts.values()) == 12
    rows = list(csv.DictReader((tmp_path / "a" / "castings.csv").read_text().splitlines()))
    assert len(rows) == 12
    for row in rows:
        assert (tmp_path / "a" / row["path"]).read_bytes() == (tmp_path / "b" / row["path"]).read_bytes()
        mask = (tmp_path / "a" / "masks" / row["path"]).with_suffix(".png")
        assert mask.exists() == (row["class"] == "def_front")
        if mask.exists():
            names = {DefectKind(value).text for value in np.unique(np.asarray(Image.open(mask))) if value}
            assert names <= set(row["defects"].split(" + "))
            assert names


@pytest.mark.parametrize("kind", SMALL_KINDS)
def test_a_small_defect_has_the_size_it_was_given_and_lies_where_it_says(kind: DefectKind) -> None:
    casting = render_large_casting(np.random.default_rng(3), side_px=900, part_mm=300)
    good, _ = casting.expose(None, 0, np.random.default_rng(1))
    pixels, defect = casting.expose(kind, 5, np.random.default_rng(1))
    assert defect is not None
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - good) > 12)
    length_px = 5 / 150 * casting.view.radius_px
    assert 0.4 * length_px < max(np.ptp(rows), np.ptp(columns)) < 1.6 * length_px
    assert np.hypot(columns.mean() - defect.x_px, rows.mean() - defect.y_px) < length_px
