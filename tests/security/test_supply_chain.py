"""No locked library has a hole of the kept list, and the bill of materials names every locked library."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta

from tests.supply_chain import ADVISORIES, Component, find_holes, list_jars, list_wheels, make_sbom

TODAY = date(2026, 11, 27)


def test_the_locks_have_no_known_hole() -> None:
    advisories = tomllib.loads(ADVISORIES.read_text())
    assert find_holes([*list_wheels(), *list_jars()], advisories, advisories["reviewed_on"]) == []


def test_an_old_jar_and_an_old_list_are_found() -> None:
    advisories = tomllib.loads(ADVISORIES.read_text())
    old = Component("jars", "lz4-java", "1.8.0"), Component("jars", "commons-beanutils", "1.9.4")
    assert [hole.split()[5] for hole in find_holes(list(old), advisories, TODAY)] == [
        "CVE-2025-12183.",
        "CVE-2025-66566.",
        "CVE-2025-48734.",
    ]
    assert "200 days ago" in find_holes([], advisories, advisories["reviewed_on"] + timedelta(days=200))[0]


def test_the_bill_of_materials_names_every_shipped_package_and_jar() -> None:
    sbom = make_sbom()
    named = {(component["name"], component["version"]) for component in sbom["components"]}
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    assert {(jar.library, jar.version) for jar in list_jars()} <= named
    wheels = {(wheel.library, wheel.version) for wheel in list_wheels()}
    assert {"django", "tensorflow", "faust-streaming"} <= {name for name, _ in named & wheels}
    assert {name for name, version in named if (name, version) not in wheels} <= {jar.library for jar in list_jars()}
