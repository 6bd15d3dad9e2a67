"""`castline-plant` runs commands with the settings, the secrets and the user of the systemd unit."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.processes import CASTLINE
from tests.security.conftest import open_folder  # noqa: F401  the fixture

pytestmark = pytest.mark.real

SYSTEMD = ROOT / "deploy" / "packaging" / "systemd"
SECRETS = """# secrets of the plant
CASTLINE_GATEWAY__TOKEN=$(touch executed) `touch executed` x
CASTLINE_SORTER__COMMAND_KEY="between quotes, with 32 characters"

"""


class Installed:
    """The script with its folders below `folder`, as an administrator installs it below / on a machine with systemd."""

    def __init__(self, folder: Path, castline: Path, user: str) -> None:
        if os.geteuid() != 0:
            pytest.fail("The script changes the user. Run this test as root.")
        text = (SYSTEMD / "castline-plant").read_text()
        for name in ("/etc/castline", "/var/lib/castline"):
            (folder / name.removeprefix("/")).mkdir(parents=True)
            text = text.replace(f"={name}", f"={folder}{name}")
        text = text.replace("=/opt/castline/.venv/bin/castline", f"={castline}").replace("user=castline", f"user={user}")
        self.script = folder / "castline-plant"
        self.script.write_text(text)
        self.secrets = folder / "etc/castline/secrets.env"
        self.secrets.write_text(SECRETS)
        self.secrets.chmod(0o600)
        self.settings = folder / "etc/castline/castline.toml"
        self.settings.write_text('[[lines]]\nname = "line-of-the-unit"\n')
        self.home = folder / "var/lib/castline"

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", self.script, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_a_command_gets_the_settings_and_secrets_of_the_unit(tmp_path: Path) -> None:
    installed = Installed(tmp_path, CASTLINE, "root")
    shown = installed.call("settings", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    values = json.loads(shown.stdout)
    assert values["lines"][0]["name"] == "line-of-the-unit"
    assert values["gateway"]["token"] == values["sorter"]["command_key"] == "**********"
    assert not list(installed.home.iterdir()), "the file of secrets is no program"
    assert installed.call("settings", "chek").returncode == 2, "the exit status is that of the command"


def test_the_user_of_the_unit_runs_the_command_with_exact_secrets(open_folder: Path) -> None:  # noqa: F811
    installed = Installed(open_folder, Path("/bin/sh"), "nobody")
    told = installed.call(
        "-c", 'id -un; pwd; umask; printf "%s\\n" "$HOME" "$CASTLINE_GATEWAY__TOKEN" "$CASTLINE_SORTER__COMMAND_KEY" "$1"', "", "a b"
    )
    assert told.stderr == ""
    assert told.stdout.splitlines() == [
        "nobody",
        str(installed.home),
        "0077",
        str(installed.home),
        "$(touch executed) `touch executed` x",
        "between quotes, with 32 characters",
        "a b",
    ]
    installed.secrets.write_text("export A=b c\nno assignment\n")
    refused = installed.call("-c", "true")
    assert refused.returncode == 3
    assert "is not NAME=VALUE. Correct the file." in refused.stderr


def test_the_script_names_the_files_of_the_unit() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEMD / "castline.service")
    service, script = unit["Service"], (SYSTEMD / "castline-plant").read_text()
    program, _, settings, _ = service["ExecStart"].split()
    assert f"castline={program}\nsettings={settings}\nsecrets={service['EnvironmentFile'].removeprefix('-')}\n" in script
    assert f"home={service['WorkingDirectory']}\nuser={service['User']}\n" in script
