"""`castline settings`, and the example file that documents every setting."""

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
from click.testing import CliRunner

from deploy.cli.main import castline
from deploy.cli.settings import described
from streams.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[3] / "deploy" / "packaging" / "example" / "castline.toml"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("castline")
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False, env={**CLEAN, **environment}
    )


def test_right_settings_are_said_to_be_right() -> None:
    found = run("--settings", str(EXAMPLE), "settings", "check")
    assert found.returncode == 0
    assert found.stdout == "the settings are right; lines: line-1, line-2, uploads; Kafka: embedded\n"


def test_every_problem_has_a_line_with_name_expected_and_found(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text('[batch]\nsize = 0\nsise = 3\n[[lines]]\nname = "Line 1"\n[lines.gate]\nsafe = "hope"\n')
    found = run("--settings", str(file), "settings", "check")
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
    found = run("settings", "check", CASTLINE_BACH__SIZE="3")
    assert found.returncode == 3
    assert "CASTLINE_BACH__SIZE" in found.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = run("--settings", str(tmp_path / "no.toml"), "settings", "check")
    assert found.returncode == 3
    assert "no.toml: cannot be read" in found.stderr


def test_secrets_are_masked_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text('[gateway]\ntoken = "s3cret-a"\n[[lines]]\nname = "line-1"\ntoken = "s3cret-b"\n')
    for form in ((), ("--json",)):
        found = run("--settings", str(file), "settings", "show", *form, CASTLINE_KAFKA__PASSWORD="s3cret-c")
        assert found.returncode == 0
        assert "s3cret" not in found.stdout
        assert found.stdout.count("*****") >= 3


def test_what_is_shown_is_what_is_in_force() -> None:
    shown = run("--settings", str(EXAMPLE), "settings", "show", CASTLINE_BATCH__SIZE="16").stdout
    as_json = json.loads(run("--settings", str(EXAMPLE), "settings", "show", "--json", CASTLINE_BATCH__SIZE="16").stdout)
    values = tomllib.loads(shown)
    assert values["batch"]["size"] == as_json["batch"]["size"] == 16
    assert values["lines"][1]["gate"]["safe"] == "stop"
    assert Settings.model_validate(values) == load_settings(EXAMPLE, {}).model_copy(update={"batch": Settings.model_validate(values).batch})


def test_the_schema_takes_the_example_and_refuses_a_wrong_one() -> None:
    schema = json.loads(run("settings", "schema", "--json").stdout)
    values = tomllib.loads(EXAMPLE.read_text())
    jsonschema.validate(values, schema)
    values["batch"]["size"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


def test_the_table_names_every_setting_with_its_meaning() -> None:
    text = CliRunner().invoke(castline, ["settings", "schema"]).output
    names = [name for name, _, _, meaning in described() if meaning]
    assert len(names) == len(list(described())), "a setting without a description"
    assert all(f"{name}  (" in text for name in names)
    assert "batch.size  (integer >= 1 <= 256; default 32)" in text
    assert 'lines[].gate.safe  (divert | pass | stop; default "divert")' in text


# The example: `name = value` is set, `# name = value` shows the default, `# name = value  # example` has no default.
_COMMENTED = re.compile(r"^# ([a-z_]+) = (.+?)(  # .*)?$")


def uncommented() -> tuple[str, set[str]]:
    """The example with every setting in force, and the full names of those that are marked as examples."""
    section, lines, examples = "", [], set()
    for line in EXAMPLE.read_text().splitlines():
        line = re.sub(r"^# (?=\[\[)", "", line)  # a section that is only shown
        if line.startswith("["):
            section = line.split("]")[0].strip("[")
        if match := _COMMENTED.match(line):
            if (match[3] or "").startswith("  # example"):
                examples.add(f"{section}.{match[1]}")
            line = f"{match[1]} = {match[2]}"
        lines.append(line)
    return "\n".join(lines), examples


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:  # an empty one is a value
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            found |= flat(value[0], f"{prefix}{name}[].")
        else:
            found[f"{prefix}{name}"] = value
    return found


def test_the_example_names_every_setting() -> None:
    named = set(flat(tomllib.loads(uncommented()[0])))
    assert named == {name for name, _, _, _ in described()}


def test_what_the_example_shows_as_default_is_the_default() -> None:
    text, examples = uncommented()
    in_force = set(flat(tomllib.loads(EXAMPLE.read_text())))
    defaults = {name: default for name, _, default, _ in described()}
    for name, value in flat(tomllib.loads(text)).items():
        plain = name.replace("[]", "")
        if name in in_force:
            continue
        if plain in examples:
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
    assert explained == {name for name, _, _, _ in described()}
