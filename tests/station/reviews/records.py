"""A stand-in for the topic `castings.reviews` in tests of the review."""

from __future__ import annotations

from station.kafka_producer import KafkaUnavailableError
from streams.records import Review


class ReviewTopic:
    """Collects the sent records. Raises KafkaUnavailableError instead as long as `is_away` is true."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Review | None]] = []
        self.is_away = False

    def send(self, topic: str, key: str, value: bytes | None) -> tuple[int, int]:
        if self.is_away:
            raise KafkaUnavailableError("Kafka did not take it.")
        assert topic == "castings.reviews"
        self.records.append((key, Review.decode(value) if value else None))
        return 0, len(self.records) - 1

    @property
    def labels(self) -> list[tuple[str, str] | None]:
        """Reviewer and label of each record, or None for a record without a value."""
        return [(review.reviewer, review.label) if review else None for _, review in self.records]
