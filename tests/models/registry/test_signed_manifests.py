"""Signed manifests: where public keys are set, a registry opens only the versions that the administrator has signed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner

from deploy.cli.main import castline
from models.registry import (
    BUNDLED_VERSIONS,
    MANIFEST_FILE,
    LocalRegistry,
    RemoteRegistry,
    open_plant_registry,
    open_registry,
    read_verified_manifest,
)
from streams.errors import ModelError
from streams.settings import Settings
from streams.signatures import SIGNING_ROLES, create_keys, sign_headers
from tests.structure.tree import ROOT, modules

Read = Callable[[str], object]


class Plant:
    """A registry with the unsigned version `demo`, and the keys of all roles."""

    def __init__(self, folder: Path, root: str) -> None:
        self.folder, self.root, self.keys = folder, root, folder / "keys"
        self.versions = folder / "versions"
        self.public = self.keys / "public"
        shutil.copytree(BUNDLED_VERSIONS / "demo", self.versions / "demo")
        for role in SIGNING_ROLES:
            create_keys(self.keys, self.public, role)

    @property
    def signature(self) -> Path:
        return self.versions / "demo.signature" / "manifest.sig"

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {"model": {"root": self.root}, "signing": {"private_keys": str(self.keys), "public_keys": str(self.public)}}
        )

    def sign(self, *arguments: str, answer: str = "y\n") -> tuple[int, str]:
        file = self.folder / "castline.toml"
        file.write_text(tomli_w.dumps({"model": {"root": self.root}, "signing": {"private_keys": str(self.keys)}}))
        result = CliRunner().invoke(castline, ["--settings", str(file), "models", "sign", *arguments], input=answer)
        return result.exit_code, result.output

    def find_refusals(self) -> list[str]:
        """Returns what each way to read the version says, or "" for a way that reads it."""
        registry = open_plant_registry(self.settings)
        ways: list[Read] = [
            registry.read_manifest,
            registry.check_version,
            registry.open_version,
            lambda name: registry.read_file(name, "golden.npz"),
        ]
        refusals = []
        for read in ways:
            try:
                read("demo")
            except ModelError as error:
                refusals.append(str(error))
            else:
                refusals.append("")
        return refusals


@pytest.fixture(params=["folder", "remote"])
def plant(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    versions = tmp_path / "versions"
    return Plant(tmp_path, f"file://{versions}" if request.param == "remote" else str(versions))


def test_an_unsigned_version_is_refused_with_the_command_that_signs_it(plant: Plant) -> None:
    for refusal in plant.find_refusals():
        assert "must be signed by the role administrator, because signing.public_keys is set, but it has no signature" in refusal
        assert refusal.endswith("castline models sign demo")


def test_without_keys_a_version_of_release_0_1_0_opens_as_before(plant: Plant) -> None:
    assert open_registry(plant.root).open_version("demo").manifest.version == "demo"
    assert plant.sign("demo")[0] == 0
    assert open_registry(plant.root).list_names() == ["demo"]
    assert open_registry(plant.root).open_version("demo").manifest.version == "demo"


def test_the_command_shows_a_version_and_signs_it_when_a_person_confirms(plant: Plant) -> None:
    status, output = plant.sign("demo", answer="n\n")
    assert status != 0
    assert not plant.signature.exists()
    assert "demo: made 20" in output
    assert plant.sign("demo", "--yes", answer="") == (0, output.partition("Sign this")[0] + "demo is signed.\n")
    assert plant.find_refusals() == [""] * 4


def test_a_damaged_version_is_not_signed(plant: Plant) -> None:
    with (plant.versions / "demo" / "golden.npz").open("ab") as file:
        file.write(b"more")
    assert plant.sign("demo")[0] != 0
    assert not plant.signature.exists()


def test_a_changed_manifest_is_refused(plant: Plant) -> None:
    plant.sign("demo")
    file = plant.versions / "demo" / MANIFEST_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"threshold": 0.99}))
    for refusal in plant.find_refusals():
        assert "but its signature does not fit" in refusal


def test_signatures_of_other_keys_versions_roles_and_purposes_are_refused(plant: Plant) -> None:
    manifest = (plant.versions / "demo" / MANIFEST_FILE).read_bytes()
    shutil.copytree(plant.versions / "demo", plant.versions / "other")
    other = plant.versions / "other" / MANIFEST_FILE
    other.write_text(json.dumps(json.loads(other.read_text()) | {"version": "other"}))
    assert plant.sign("other")[0] == 0
    of_other_version = (plant.versions / "other.signature" / "manifest.sig").read_bytes()
    of_a_record = dict(sign_headers(plant.settings, "castings.models", b"demo", manifest))["castline-signed"]
    of_the_station = dict(sign_headers(plant.settings.for_role("station"), "castings.models", b"demo", manifest))["castline-signed"]
    assert of_a_record.startswith(b"administrator:")
    for forged in (of_other_version, of_a_record, of_the_station, b"administrator:", b"administrator:####", b"\xff", b"a" * 5000):
        plant.signature.parent.mkdir(exist_ok=True)
        plant.signature.write_bytes(forged)
        assert all(plant.find_refusals()), forged


def test_a_removed_public_key_makes_its_signatures_worthless(plant: Plant) -> None:
    plant.sign("demo")
    create_keys(plant.folder / "new", plant.folder / "new-public", "administrator")
    strangers = plant.settings.signing.model_copy(update={"public_keys": plant.folder / "new-public"})
    with pytest.raises(ModelError, match="does not fit"):
        open_plant_registry(plant.settings.model_copy(update={"signing": strangers})).open_version("demo")


def test_a_signed_version_is_copied_with_its_signature_and_used_while_the_remote_registry_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plant = Plant(tmp_path, str(tmp_path / "versions"))
    plant.sign("demo")
    remote = RemoteRegistry(f"file://{tmp_path}/remote", public_keys=plant.public)
    remote.push(LocalRegistry(plant.versions).open_version("demo"))
    assert (tmp_path / "remote" / "demo.signature" / "manifest.sig").read_bytes() == plant.signature.read_bytes()
    copy = remote.open_version("demo")
    (tmp_path / "remote").rename(tmp_path / "away")
    (tmp_path / "remote").write_text("no folder")
    assert remote.open_version("demo").folder == copy.folder
    shutil.rmtree(copy.folder.parent / "demo.signature")
    with pytest.raises(ModelError, match="no signature"):
        remote.open_version("demo")


def test_a_wrong_signature_or_a_broken_download_of_the_remote_registry_spoils_no_good_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plant = Plant(tmp_path, str(tmp_path / "versions"))
    plant.sign("demo")
    remote = RemoteRegistry(f"file://{plant.root}", public_keys=plant.public)
    good, manifest = remote.open_version("demo"), plant.versions / "demo" / MANIFEST_FILE
    copied = good.folder.parent / "demo.signature" / "manifest.sig"
    signed, content = copied.read_bytes(), manifest.read_bytes()
    plant.signature.write_bytes(b"administrator:AAAA")
    with pytest.raises(ModelError, match="its signature does not fit"):
        remote.open_version("demo")
    assert copied.read_bytes() == signed
    # A new manifest with its true signature, but one of its files cannot be downloaded.
    manifest.write_text(json.dumps(json.loads(content) | {"threshold": 0.5}))
    plant.sign("demo")
    (plant.versions / "demo" / "golden.npz").unlink()
    with pytest.raises(ModelError):
        remote.open_version("demo")
    assert copied.read_bytes() == signed
    (tmp_path / "versions").rename(tmp_path / "away")
    (tmp_path / "versions").write_text("no folder")
    assert remote.open_version("demo").folder == good.folder


def test_a_new_signature_of_a_copied_version_is_copied_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plant = Plant(tmp_path, str(tmp_path / "versions"))
    plant.sign("demo")
    remote = RemoteRegistry(f"file://{plant.root}", public_keys=plant.public)
    copied = remote.open_version("demo").folder.parent / "demo.signature" / "manifest.sig"
    create_keys(plant.keys, plant.public, "administrator")
    plant.sign("demo")
    remote.open_version("demo")
    assert copied.read_bytes() == plant.signature.read_bytes()


def test_a_manifest_that_was_changed_after_its_version_was_verified_is_not_signed(tmp_path: Path) -> None:
    plant = Plant(tmp_path, str(tmp_path / "versions"))
    manifest = plant.versions / "demo" / MANIFEST_FILE
    verified = open_registry(plant.root).open_version("demo")
    assert read_verified_manifest(verified) == manifest.read_bytes()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"threshold": 0.99}))
    with pytest.raises(ModelError, match="was changed after it was verified"):
        read_verified_manifest(verified)


def test_every_program_of_the_plant_opens_the_registry_with_its_keys() -> None:
    """Commands on single versions, measurements with versions of their own, and two cached readers open a registry themselves."""
    found = {str(file) for file in modules("agents", "bench", "deploy", "station") if " open_registry" in (ROOT / file).read_text("utf-8")}
    assert found == {"bench/runtimes.py", "deploy/cli/models.py", "station/manifests.py"}
    assert (ROOT / "station/manifests.py").read_text("utf-8").count("public_keys=public_keys") == 2


def test_the_registry_checks_signatures_without_kafka_libraries_and_tensorflow() -> None:
    program = "import sys, models.registry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"kafka", "aiokafka", "faust", "tensorflow", "keras"} & set(loaded)
    assert "cryptography" in loaded
