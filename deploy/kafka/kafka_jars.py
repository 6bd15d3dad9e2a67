"""The embedded broker's jars: fetched once into the user's cache, and checked against the sums kept here.

jgo resolves and downloads them; `kafka_jars.sha256` pins what they must be, so a changed jar is refused, not run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from streams.errors import BrokerError

KAFKA = "org.apache.kafka:kafka_2.13:4.1.1"
# Kafka logs through SLF4J and brings no binding of its own: without this one its log stays empty. Resolved apart from
# Kafka, and only the one jar taken: resolved together, jgo mixes their versions.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
SUMS = Path(__file__).with_name("kafka_jars.sha256")


def jar_sums(jars: list[Path]) -> dict[str, str]:
    """SHA-256 of each jar by its file name."""
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}


def kafka_jars() -> list[Path]:
    """The broker's jars, from the cache, or downloaded into it.

    Raises BrokerError: without a network on the first start, or when a jar is not what the sums say.
    """
    import jgo  # its import takes a third of a second that only the broker's start should pay

    try:
        jars = [Path(jar) for jar in jgo.build(KAFKA).all_jars]
        jars += [Path(jar) for jar in jgo.build(LOG_BINDING).all_jars if Path(jar).name.startswith("log4j-slf4j-impl")]
    except Exception as error:
        raise BrokerError(
            f"the broker's jars ({KAFKA}) are not in the cache and cannot be fetched: {error}; "
            "connect this machine to Maven Central once (castline broker --fetch-only), then it works offline"
        ) from error
    lines = [line.split() for line in SUMS.read_text().splitlines() if line]
    expected = {name: digest for digest, name in lines}
    found = jar_sums(jars)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        folder = jars[0].parent if jars else "the cache"
        raise BrokerError(
            f"expected the jars that kafka_jars.sha256 lists, found {', '.join(wrong)} to differ; delete {folder} to fetch them again"
        )
    return jars
