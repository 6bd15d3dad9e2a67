"""Commands that read labelled pictures of a 12-bit camera: they take the depth of the version's training, and name what they left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from deploy.cli.main import castline
from models.registry import MANIFEST_FILE, open_registry
from models.synthetic import render_series
from tests.tiny_version import make_tiny_version

pytestmark = pytest.mark.real

COUNT = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a camera that writes 12 bits into files of 16 bits, and one damaged file."""
    root = tmp_path_factory.mktemp("twelve-bits")
    for number, casting in enumerate(render_series(2 * COUNT, seed=3, defect_share=0.0)):
        folder = root / ("ok" if number < COUNT else "defect")
        folder.mkdir(exist_ok=True)
        Image.fromarray(casting.pixels.astype(np.uint16) * 16).save(folder / f"{number}.png")
    (root / "ok" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that was trained with --depth-bits 12. As in an old version, its manifest has no drift reference."""
    folder = make_tiny_version(tmp_path_factory.mktemp("versions")).folder
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    fields["preprocessing"]["depth_bits"] = 12
    (folder / MANIFEST_FILE).write_text(json.dumps(fields))
    return folder


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(castline, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_the_commands_read_the_pictures_with_the_depth_of_the_training(data: Path, version: Path) -> None:
    compared = run("models", "compare", version, version, "--data", data, "--json")
    simulated = run("lines", "simulate", "--model", version, "--data", data, "--defect-share", "0.3", "--json")
    evaluated = run("evaluate", "--model", version, "--data", data, "--json")
    referenced = run("models", "reference", version, "--data", data)
    assert {row["pictures"] for row in json.loads(compared.stdout)["versions"]} == {2 * COUNT}
    assert json.loads(simulated.stdout)["pictures"] == json.loads(evaluated.stdout)["figures"]["pictures"] == 2 * COUNT
    reference = open_registry(version.parent).read_manifest(version.name).reference
    assert reference is not None
    assert reference.pictures == 2 * COUNT
    for result in (compared, simulated, referenced):
        assert result.stderr.count("left out: ") == 1
        assert "broken.png: The file is no picture" in result.stderr


def test_an_option_replaces_the_depth_of_the_training(data: Path, version: Path) -> None:
    for command in (["compare", str(version), str(version)], ["optimise", str(version)]):
        result = CliRunner().invoke(castline, ["models", *command, "--data", str(data), "--depth-bits", "9", "--json"])
        assert "depth_bits = 9 of the line allows 511" in str(result.exception)


def test_an_experiment_reads_the_pictures_with_the_given_depth(data: Path, tmp_path: Path) -> None:
    options = ["--side", "64", "--per-group", "30", "--out", str(tmp_path)]
    found = run("experiment", "good-only", "--data", data, "--depth-bits", "12", *options)
    assert found.stderr.count("left out: ") == 1
    without = CliRunner().invoke(castline, ["experiment", "good-only", "--data", str(data), *options])
    assert "None of the 21 files could be read" in str(without.exception)
