"""The bill of materials of all locked packages and jars, and their comparison with the kept list of known holes. Needs no network.

`python -m tests.supply_chain sbom` writes dist/castline.cdx.json. `python -m tests.supply_chain audit` exits with 1 if a lock has a hole.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from packaging.version import Version

from deploy.kafka.java import CHECKSUMS

ROOT = Path(__file__).parents[1]
ADVISORIES = ROOT / "deploy/packaging/advisories.toml"
SBOM = ROOT / "dist/castline.cdx.json"
# A hole that became known after the last review is not in the list.
_MAX_AGE_DAYS = 180
_JAR = re.compile(r"(?P<library>.+?)-(?P<version>\d[\w.\-]*)\.jar")


@dataclass(frozen=True)
class Component:
    """A library in one of the locks. `kind` is `wheels` or `jars`."""

    kind: str
    library: str
    version: str
    sha256: str = ""


def list_jars() -> Iterator[Component]:
    """Yields the jars in the lock of the broker."""
    for line in CHECKSUMS.read_text().splitlines():
        sha256, name = line.split()
        found = _JAR.fullmatch(name)
        assert found, f"{name}: expected a jar with a version in its name"
        yield Component("jars", found["library"], found["version"], sha256)


def list_wheels() -> Iterator[Component]:
    """Yields the Python packages in the lock, those for development included."""
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        if "registry" in package["source"]:
            yield Component("wheels", package["name"], package["version"])


def find_holes(components: list[Component], advisories: dict[str, Any], today: date) -> list[str]:
    """Returns a sentence for each component with a known hole, and one if the list of known holes is too old."""
    holes = [
        f"{component.library} {component.version} has the hole {advisory['id']}. Use {advisory['fixed']} or a later release."
        for component in components
        for advisory in advisories.get(component.kind, [])
        if advisory["library"] == component.library and Version(component.version) < Version(advisory["fixed"])
    ]
    if (age := today - advisories["reviewed_on"]).days > _MAX_AGE_DAYS:
        holes.append(f"{ADVISORIES.name} was last reviewed {age.days} days ago. SECURITY.md says how to review it.")
    return holes


def make_sbom() -> dict[str, Any]:
    """Returns the bill of materials in CycloneDX 1.5: the packages as uv exports them from its lock, and the jars."""
    command = [str(Path(sys.executable).with_name("uv")), "export", "--frozen", "--all-extras", "--no-dev", "--format", "cyclonedx1.5"]
    command += ["--preview-features", "sbom-export", "--offline", "--no-cache"]
    exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sbom: dict[str, Any] = json.loads(exported)
    sbom["components"] += [
        {
            "type": "library",
            "bom-ref": f"jar-{jar.library}@{jar.version}",
            "name": jar.library,
            "version": jar.version,
            "hashes": [{"alg": "SHA-256", "content": jar.sha256}],
        }
        for jar in list_jars()
    ]
    return sbom


def main(action: str) -> int:
    if action == "sbom":
        SBOM.parent.mkdir(exist_ok=True)
        SBOM.write_text(json.dumps(make_sbom(), indent=2) + "\n")
        print(f"{SBOM.relative_to(ROOT)} is written.")
        return 0
    components = [*list_wheels(), *list_jars()]
    holes = find_holes(components, tomllib.loads(ADVISORIES.read_text()), date.today())
    print("\n".join(holes) or f"{len(components)} locked libraries have no hole of the kept list.")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
