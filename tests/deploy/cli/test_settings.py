"""Tests `castline settings` and the example settings file, which documents every setting."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
import tomli_w
from click.testing import CliRunner

from deploy.cli.main import castline
from deploy.cli.settings import describe_settings
from streams.errors import SettingsError
from streams.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[3] / "deploy" / "packaging" / "example" / "castline.toml"
SETTINGS = {setting.name for setting in describe_settings()}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}


def run_castline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the installed command in an environment whose only CASTLINE_ variables are those of `environment`."""
    script = Path(sys.executable).with_name("castline")
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False, env={**ENVIRONMENT, **environment}
    )


def test_valid_settings_are_reported_as_valid() -> None:
    found = run_castline("--settings", str(EXAMPLE), "settings", "check")
    assert found.returncode == 0
    assert found.stdout == "The settings are valid. Lines: line-1, line-2, uploads. Kafka: embedded.\n"


def test_each_problem_has_a_line_with_name_expected_and_found(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text('[batch]\nsize = 0\nsise = 3\n[[lines]]\nname = "Line 1"\n[lines.gate]\nsafe = "hope"\n')
    found = run_castline("--settings", str(file), "settings", "check")
    assert found.returncode == 3
    problems = found.stderr.splitlines()
    assert [problem.split(":")[0] for problem in problems] == [
        "batch.size",
        "batch.sise",
        "lines.0.name",
        "lines.0.gate.port",
        "lines.0.gate.safe",
    ]
    assert all("expected" in problem and "found" in problem for problem in problems)


def test_a_misspelt_variable_is_refused() -> None:
    found = run_castline("settings", "check", CASTLINE_BACH__SIZE="3")
    assert found.returncode == 3
    assert "CASTLINE_BACH__SIZE" in found.stderr


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    found = run_castline("--settings", str(tmp_path / "no.toml"), "settings", "check")
    assert found.returncode == 3
    assert "no.toml cannot be read" in found.stderr


def test_a_command_without_settings_says_that_the_defaults_apply(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("castline")

    def note(**environment: str) -> str:
        command = [sys.executable, str(script), "settings", "check"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**ENVIRONMENT, **environment})
        assert (found.returncode, found.stdout.count("\n")) == (0, 1)
        return found.stderr

    assert f"There is no castline.toml in {tmp_path}" in note()
    assert note(CASTLINE_BATCH__SIZE="16") == ""
    (tmp_path / "castline.toml").touch()
    assert note() == ""


@pytest.mark.parametrize(
    ("address", "token", "is_refused"),
    [
        ("http://gateway.plant.example:18080", "", True),
        ("http://gateway.plant.example:18080", "t" * 32, False),
        ("http://127.0.0.1:18080", "", False),
        ("", "", False),
    ],
)
def test_a_gateway_on_another_machine_needs_a_token(tmp_path: Path, address: str, token: str, is_refused: bool) -> None:
    values = tomllib.loads(EXAMPLE.read_text())
    values["sorter"]["gateway_url"] = address
    values["gateway"]["token"] = token
    file = tmp_path / "castline.toml"
    file.write_text(tomli_w.dumps(values))
    if is_refused:
        with pytest.raises(SettingsError, match=r"^gateway.token: expected a token, because the sorter of line-1 reports"):
            load_settings(file, {})
    else:
        load_settings(file, {})


def test_secrets_of_every_section_are_masked(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text('[gateway]\ntoken = "s3cret-a"\n[[lines]]\nname = "line-1"\ntoken = "s3cret-b"\n')
    for form in ((), ("--json",)):
        found = run_castline("--settings", str(file), "settings", "show", *form, CASTLINE_KAFKA__PASSWORD="s3cret-c")
        assert found.returncode == 0
        assert "s3cret" not in found.stdout
        assert found.stdout.count("*****") >= 3


def test_show_prints_the_values_that_are_in_force() -> None:
    shown = run_castline("--settings", str(EXAMPLE), "settings", "show", CASTLINE_BATCH__SIZE="16").stdout
    as_json = json.loads(run_castline("--settings", str(EXAMPLE), "settings", "show", "--json", CASTLINE_BATCH__SIZE="16").stdout)
    values = tomllib.loads(shown)
    assert values["batch"]["size"] == as_json["batch"]["size"] == 16
    assert values["lines"][1]["gate"]["safe"] == "stop"
    assert Settings.model_validate(values) == load_settings(EXAMPLE, {}).model_copy(update={"batch": Settings.model_validate(values).batch})


def test_the_schema_accepts_the_example_and_rejects_a_wrong_value() -> None:
    schema = json.loads(run_castline("settings", "schema", "--json").stdout)
    values = tomllib.loads(EXAMPLE.read_text())
    jsonschema.validate(values, schema)
    values["batch"]["size"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


def test_the_schema_lists_every_setting_with_its_meaning() -> None:
    text = CliRunner().invoke(castline, ["settings", "schema"]).output
    settings = list(describe_settings())
    assert [setting.name for setting in settings if not setting.meaning] == []
    assert all(f"{setting.name}  (" in text for setting in settings)
    assert "batch.size  (integer >= 1 <= 256; default 32)" in text
    assert 'lines[].gate.safe  (divert | pass | stop; default "divert")' in text


# In the example `name = value` sets a value, `# name = value` shows the default, and `# name = value  # example` shows a possible
# value of a setting that has no default.
COMMENTED_SETTING = re.compile(r"^# ([a-z_]+) = (.+?)(  # .*)?$")


def uncomment_example() -> tuple[str, set[str]]:
    """Returns the example with every setting uncommented, and the names, with section, of the settings that are marked as examples."""
    section, lines, examples = "", [], set()
    for line in EXAMPLE.read_text().splitlines():
        line = re.sub(r"^# (?=\[\[)", "", line)
        if line.startswith("["):
            section = line.split("]")[0].strip("[")
        if match := COMMENTED_SETTING.match(line):
            if (match[3] or "").startswith("  # example"):
                examples.add(f"{section}.{match[1]}")
            line = f"{match[1]} = {match[2]}"
        lines.append(line)
    return "\n".join(lines), examples


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns all values by their names with section. An empty table is a value, and so is a setting that maps names to values.

    Of a list of tables the first one counts.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value and f"{prefix}{name}" not in SETTINGS:
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            flat |= flatten(value[0], f"{prefix}{name}[].")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def test_the_example_names_every_setting() -> None:
    names = set(flatten(tomllib.loads(uncomment_example()[0])))
    assert names == {setting.name for setting in describe_settings()}


def test_every_default_in_the_example_is_the_default_of_the_code() -> None:
    text, examples = uncomment_example()
    values_set = set(flatten(tomllib.loads(EXAMPLE.read_text())))
    defaults = {setting.name: setting.default for setting in describe_settings()}
    for name, value in flatten(tomllib.loads(text)).items():
        if name in values_set:
            continue
        if name.replace("[]", "") in examples:
            assert defaults[name] in ("default null", 'default ""', "required"), f"{name} has a default, show it"
        else:
            assert json.loads(defaults[name].removeprefix("default ")) == value, name


def test_every_setting_of_the_example_is_explained() -> None:
    section, explained = "", set()
    for line in EXAMPLE.read_text().splitlines():
        if (header := line.removeprefix("# ")).startswith("["):
            section = header.split("]")[0].strip("[")
        if match := re.match(r"^(?:# )?([a-z_]+) = .+?  # (.+)$", line):
            explained.add(f"{section}.{match[1]}".replace("lines.", "lines[].").replace("grades.", "grades[]."))
    assert explained == {setting.name for setting in describe_settings()}
