"""The list of the pictures that the weights of a version have learned, over several trainings."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.registry import LocalRegistry, Version, locate_version, open_registry, write_manifest
from models.training import learned_pictures
from models.training.learned_pictures import LearnedPictures, Missing, shorten_checksums

pytestmark = pytest.mark.real


def make_checksums(name: str, count: int = 5) -> list[str]:
    return [hashlib.sha256(f"{name} {number}".encode()).hexdigest() for number in range(count)]


def write_successor(start: Version, root: Path, name: str, learned: LearnedPictures) -> Version:
    """Writes a copy of `start` whose weights have learned `learned`."""
    manifest = start.manifest
    old = manifest.learned.file if manifest.learned else ""
    with LocalRegistry(root).write_version(name) as folder:
        for file in manifest.files:
            if file != old:
                shutil.copyfile(start.folder / file, folder / file)
        fields = manifest.model_dump(by_alias=True, exclude={"files"}) | {"version": name}
        written = write_manifest(folder, fields | {"learned": learned.save(folder, "learned-pictures.npz")})
    return Version(root / name, written)


def load(version: Version) -> LearnedPictures:
    return LearnedPictures.load(version, version.manifest.learned, version.manifest.has_seen_only_rendered)


@pytest.fixture
def tiny(models_root: Path) -> Version:
    return open_registry(models_root).open_version("tiny")


def test_a_version_knows_the_pictures_of_all_its_ancestors(tiny: Version, tmp_path: Path) -> None:
    version = write_successor(tiny, tmp_path, "a", LearnedPictures().extend(make_checksums("a")))
    for name in ("b", "c"):
        version = write_successor(version, tmp_path, name, load(version).extend(make_checksums(name)))
    assert set(load(version).checksums) == set(shorten_checksums([*make_checksums("a"), *make_checksums("b"), *make_checksums("c")]))
    assert version.manifest.learned is not None
    assert (version.manifest.learned.is_complete, version.manifest.learned.misses_only_rendered) == (True, False)


@pytest.mark.parametrize(("only_rendered", "missing"), [(True, Missing.RENDERED), (False, Missing.ANY)])
def test_a_list_is_not_complete_if_that_of_an_ancestor_is_absent(
    tiny: Version, tmp_path: Path, only_rendered: bool, missing: Missing
) -> None:
    version = Version(tiny.folder, tiny.manifest.model_copy(update={"only_rendered": only_rendered, "learned": None}))
    for name in ("b", "c", "d"):
        successor = write_successor(version, tmp_path, name, load(version).extend(make_checksums(name)))
        version = Version(successor.folder, successor.manifest.model_copy(update={"only_rendered": False}))
        assert version.manifest.learned is not None
        assert not version.manifest.learned.is_complete
        learned = load(version)
        assert learned.missing is missing
        assert (learned.may_miss(rendered=0), learned.may_miss(rendered=1)) == (missing is Missing.ANY, True)


def test_pictures_that_are_left_out_are_counted_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(learned_pictures, "MAX_PICTURES", 12)
    with caplog.at_level(logging.WARNING):
        both = LearnedPictures().extend(make_checksums("a")).extend(make_checksums("b"))
        assert (len(both.checksums), both.missing, caplog.messages) == (10, Missing.NONE, [])
        cut = both.extend(make_checksums("c"))
    assert (len(cut.checksums), cut.missing) == (12, Missing.ANY)
    assert np.isin(shorten_checksums(make_checksums("c")), cut.checksums).all(), "the newest pictures stay"
    (message,) = caplog.messages
    assert "at most 12 pictures, so 3 pictures are left out" in message


def test_the_list_of_the_shipped_version_misses_only_rendered_pictures() -> None:
    demo = locate_version("demo")
    assert load(demo).missing is Missing.RENDERED
