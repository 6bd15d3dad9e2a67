"""The manifest names the picture decoder with which a version was made, and a version of another decoder says so everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli import models
from models.pictures.decoder_version import DECODER_VERSION, describe_decoder_version
from models.pictures.part_finder import learn_part_reference
from models.registry import BUNDLED_VERSIONS, MANIFEST_FILE, open_registry
from models.registry.local_registry import parse_manifest
from streams.errors import ModelError
from tests.rendered_pictures import pictures
from tests.tiny_version import make_tiny_version, make_version_of_random_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version_of_random_bytes(tmp_path_factory.mktemp("versions")).folder


def test_a_new_version_names_the_decoder_of_this_program(folder: Path) -> None:
    manifest = open_registry(folder.parent).open_version("tiny").manifest
    assert manifest.decoder_version == DECODER_VERSION
    assert manifest.describe_decoder() == ""
    assert "decoder" not in CliRunner().invoke(models.command, ["show", str(folder)]).stderr


@pytest.mark.real
def test_a_manifest_of_release_0_1_0_means_the_first_decoder(tmp_path: Path) -> None:
    folder = make_tiny_version(tmp_path).folder
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    del fields["decoder_version"]
    (folder / MANIFEST_FILE).write_text(json.dumps(fields))
    manifest = open_registry(folder.parent).open_version("tiny").manifest
    assert "picture decoder 1" in manifest.describe_decoder()
    assert f"decoder {DECODER_VERSION}" in manifest.describe_decoder()
    assert manifest.describe_decoder() in CliRunner().invoke(models.command, ["verify", str(folder)]).stdout


def test_a_version_made_with_another_decoder_says_so() -> None:
    """The bundled version was made by release 0.1.0."""
    demo = open_registry(BUNDLED_VERSIONS).open_version("demo")
    assert demo.manifest.decoder_version is None
    shown = CliRunner().invoke(models.command, ["show", "demo"])
    assert demo.manifest.describe_decoder() in shown.stderr
    assert json.loads(shown.stdout)["version"] == "demo"


@pytest.mark.parametrize("made_with", [None, 1, 2])
def test_a_version_made_with_an_older_decoder_names_all_pictures_that_changed_since_then(made_with: int | None) -> None:
    sentence = describe_decoder_version(made_with)
    assert ("more than 8 bits" in sentence) == (made_with != 2)
    assert "EXIF tag turns" in sentence
    assert "large JPEGs whose width or height is not a multiple of 8" in sentence


def test_the_bundled_version_says_that_it_has_seen_no_photograph(folder: Path) -> None:
    """Its manifest is older than the field `only_rendered`, so the command that made it tells this."""
    demo = open_registry(BUNDLED_VERSIONS).read_manifest("demo")
    assert demo.only_rendered is None
    assert demo.describe_training_pictures().startswith("Version demo has learned from rendered pictures only.")
    assert demo.model_copy(update={"only_rendered": False}).describe_training_pictures() == ""
    assert open_registry(folder.parent).read_manifest("tiny").describe_training_pictures() == ""


def test_a_version_without_a_part_reference_has_none() -> None:
    fields = json.loads((BUNDLED_VERSIONS / "demo" / MANIFEST_FILE).read_text(encoding="utf-8"))
    fields.pop("part", None)
    assert parse_manifest(json.dumps(fields).encode(), "demo").part is None


def test_a_manifest_keeps_its_part_reference(folder: Path) -> None:
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    reference = learn_part_reference(pictures()[:20])
    fields["part"] = reference.model_dump(mode="json")
    assert parse_manifest(json.dumps(fields).encode(), "tiny").part == reference
    fields["part"]["signatures"][0].pop()
    with pytest.raises(ModelError, match=r"part\.signatures"):
        parse_manifest(json.dumps(fields).encode(), "tiny")
