"""Roles on a real broker that are killed between two steps of a delivery: no offset is committed too early, and no record is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import CoordinatorNotAvailableError

from streams.group_members import make_identity
from streams.identity import PartId
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import PICTURES, read_topic, wait_for
from tests.sample_records import make_sorting
from tests.stepped_worker import SteppedWorker

pytestmark = pytest.mark.real

LINE = "line-1"


class RoleUnderTest:
    """The topic that a role reads, records for the topic, and the results of the role."""

    def __init__(self, role: str, settings: Settings, folder: Path) -> None:
        self.role = role
        self.settings = settings
        self.folder = folder
        names = TopicNames(settings.topics.prefix)
        self._names = names
        self._topic = {"inspector": names.images, "archivist": names.sorted, "sorter": names.verdicts}[role](LINE)
        self._group = make_identity(settings, role, f"{role}-1").group
        self._next_part = 1

    def start(self) -> SteppedWorker:
        return SteppedWorker(self.role, self.settings, self.folder)

    def send_two(self) -> list[str]:
        """Sends two records to the role, and returns their part ids."""
        producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap)
        parts = [PartId(LINE, 1, self._next_part + number) for number in range(2)]
        self._next_part += 2
        for part in parts:
            # The sorter gets verdicts that cannot be read, because a valid verdict needs a board.
            value = {"inspector": PICTURES[0], "archivist": make_sorting(part).encode(), "sorter": b"{"}[self.role]
            producer.send(self._topic, key=part.key, value=value, partition=0).get(10)
        producer.close()
        return [str(part) for part in parts]

    def committed(self) -> int:
        place = TopicPartition(self._topic, 0)
        admin = KafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        try:
            return int(admin.list_group_offsets({self._group: [place]})[self._group][place].offset)
        except CoordinatorNotAvailableError:
            # A new broker answers like this until it has created its own topic of offsets.
            return -1
        finally:
            admin.close()

    def results(self) -> Counter[str]:
        """Returns how often the role has delivered the result of each part."""
        if self.role == "archivist":
            file = self.folder / "archive"
            return Counter(file.read_text().split() if file.is_file() else [])
        topic = self._names.verdicts(LINE) if self.role == "inspector" else self._names.dead_letters
        return Counter((key or b"").decode() for key in read_topic(self.settings, topic).keys)


@pytest.mark.parametrize(("role", "deliveries"), [("inspector", 1), ("archivist", 1), ("sorter", 2)])
def test_an_offset_is_committed_only_after_the_delivery_and_a_killed_role_loses_no_record(
    make_settings: MakeSettings, tmp_path: Path, role: str, deliveries: int
) -> None:
    """The inspector and the archivist deliver both records at once, and the sorter delivers each record alone."""
    settings = make_settings(
        lines=({"name": LINE, "gate": {"port": "board"}},),
        topics={"image_partitions": 1},
        batch={"size": 2, "shapes": (2,), "max_wait_s": 5},
        archivist={"batch": 2, "max_wait_s": 10},
    )
    tested = RoleUnderTest(role, settings, tmp_path)
    with tested.start() as worker:
        first = tested.send_two()
        wait_for(lambda: tested.committed() == 2, 25, "expected the offset after the first two records")
        worker.hold("before")
        second = tested.send_two()
        worker.wait_for("before", deliveries)
        assert tested.committed() == 2, "the delivery has not begun"
        assert tested.results() == Counter(first)
        worker.hold("after")
        worker.wait_for("after", deliveries)
        assert tested.results() == Counter(first + second)
        # The role was not told yet that the delivery has ended, so it cannot have acknowledged the records.
        assert tested.committed() == 2
    with tested.start():
        wait_for(lambda: tested.committed() == 4, 60, "expected that the records are delivered again")
    assert tested.results() == Counter(first + second + second)
