"""Reading pictures from Kafka and from the object store, and addresses that must not be read."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from threading import Barrier, Event, Lock
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.supervisor.ports import free_ports
from station.kafka_producer import ConfirmedProducer, KafkaUnavailableError
from station.pictures.part_picture_reader import PartPictureReader, PictureBudget, PictureLocation, describe_refusal, read_object
from streams.errors import PictureError
from streams.object_store import ObjectStore
from streams.settings import KafkaSettings, LineSettings, Settings, StoreSettings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.encoded_pictures import encode, make_png
from tests.image_topics import make_jpeg
from tests.rendered_pictures import camera_pictures


@dataclass
class FakeLocation:
    """A PictureLocation without a database row."""

    line: str = "line-1"
    part_key: str = "line-1:1:1"
    picture: str = ""
    image_topic: str = ""
    image_partition: int | None = None
    image_offset: int | None = None
    sha256: str = ""


def send_picture(settings: Settings, value: bytes, claim: str = "") -> FakeLocation:
    """Sends a picture to the image topic of line-1, or an empty record with `claim`. Returns where the picture is."""
    topic, producer = TopicNames(settings.topics.prefix).images("line-1"), ConfirmedProducer(settings)
    partition, offset = producer.send(topic, "line-1:1:1", value, [("claim", claim.encode())] if claim else [])
    producer.close()
    return FakeLocation(image_topic=topic, image_partition=partition, image_offset=offset)


def test_a_picture_is_read_from_kafka(make_settings: MakeSettings) -> None:
    settings = make_settings()
    values = [make_jpeg(seed) for seed in range(6)]
    locations = [send_picture(settings, value) for value in values]
    reader = PartPictureReader(settings)
    assert [reader.read_original(location) for location in locations] == values
    picture = reader.read_for_browser(locations[0])
    assert picture is not None
    assert (picture.value, picture.content_type) == (values[0], "image/jpeg")
    reader.close()


def test_concurrent_requests_read_a_picture_once(make_settings: MakeSettings) -> None:
    settings = make_settings()
    location = send_picture(settings, value := make_jpeg(1))
    location.sha256 = hashlib.sha256(value).hexdigest()
    pictures, together = PartPictureReader(settings), Barrier(12)

    def ask() -> object:
        together.wait(30)
        return pictures.read_for_browser(location, 240)

    with ThreadPoolExecutor(12) as some:
        found = [one.result() for one in [some.submit(ask) for _ in range(12)]]
    pictures.close()
    assert found[0] is not None
    assert len({id(one) for one in found}) == 1


def test_a_large_picture_is_read_by_its_claim_check(make_settings: MakeSettings) -> None:
    settings = make_settings()
    claim = ObjectStore(settings.store.url).put(make_jpeg(1))
    reader = PartPictureReader(settings)
    assert reader.read_original(send_picture(settings, b"", claim)) == make_jpeg(1)
    with pytest.raises(PictureError, match="claim"):
        reader.read_original(send_picture(settings, b"", "../../etc/passwd"))
    reader.close()


def test_a_picture_that_needs_too_much_memory_is_not_shown_and_harms_no_other(make_settings: MakeSettings) -> None:
    settings = make_settings(pictures={"upload_memory_bytes": 2**25})
    large = encode(np.tile(np.arange(256, dtype=np.uint8), (6000, 24)), "PNG", compress_level=1)
    reader, store = PartPictureReader(settings), ObjectStore(settings.store.url)
    with pytest.raises(PictureError, match="more memory"):
        reader.read_for_browser(FakeLocation(picture=store.put(large)), 240)
    thumbnail = reader.read_for_browser(FakeLocation(picture=store.put(make_jpeg(1))), 240)
    assert thumbnail is not None
    assert thumbnail.content_type == "image/jpeg"
    reader.close()


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[ObjectStore, PartPictureReader]]:
    """A store and its reader, without Kafka."""
    settings = Settings(store=StoreSettings(url=str(tmp_path)), lines=(LineSettings(name="line-1"),))
    reader = PartPictureReader(settings)
    yield ObjectStore(settings.store.url), reader
    reader.close()


def locate(store: ObjectStore, value: bytes) -> FakeLocation:
    return FakeLocation(picture=store.put(value), sha256=hashlib.sha256(value).hexdigest())


@pytest.mark.parametrize("side_px", [None, 240])
def test_a_refused_picture_is_not_converted_again(stored: tuple[ObjectStore, PartPictureReader], side_px: int | None) -> None:
    store, reader = stored
    location = locate(store, make_jpeg(1)[:-200])
    with pytest.raises(PictureError, match="ends too early"):
        reader.read_for_browser(location, side_px)
    store.delete(location.picture)
    with pytest.raises(PictureError, match="ends too early"):
        reader.read_for_browser(location, side_px)


def test_a_picture_that_is_missing_in_the_store_is_read_again(stored: tuple[ObjectStore, PartPictureReader]) -> None:
    store, reader = stored
    location = locate(store, make_jpeg(1))
    location.sha256 = hashlib.sha256(make_jpeg(2)).hexdigest()
    with pytest.raises(PictureError, match="Another picture"):
        reader.read_for_browser(location)
    location.picture = store.put(make_jpeg(2))
    assert reader.read_for_browser(location) is not None


def test_the_conversions_of_an_account_wait_for_each_other_and_keep_nobody_waiting(stored: tuple[ObjectStore, PartPictureReader]) -> None:
    store, reader = stored
    location, other = locate(store, make_jpeg(1)), locate(store, make_jpeg(2))
    reader._account_locks[1] = account_lock = Lock()
    with ThreadPoolExecutor(1) as thread:
        with account_lock:
            waiting = thread.submit(reader.read_for_browser, location, 240, 1)
            assert reader.read_for_browser(other, 240, 2) is not None
            assert not waiting.done()
        assert waiting.result(30) is not None


@contextmanager
def held(locks: Iterable[Lock]) -> Iterator[None]:
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


def test_a_picture_whose_account_is_busy_for_long_is_refused_and_may_be_requested_again(tmp_path: Path) -> None:
    settings = Settings(store=StoreSettings(url=str(tmp_path)), lines=(LineSettings(name="line-1"),))
    store, reader = ObjectStore(settings.store.url), PartPictureReader(settings, max_wait_s=0.2)
    location = locate(store, make_jpeg(1))
    with held(reader._list_locks(None, 1)), pytest.raises(KafkaUnavailableError, match="Too many pictures") as refusal:
        reader.read_for_browser(location, 240, 1)
    assert describe_refusal(refusal.value) == (503, {"Retry-After": "5"})
    assert reader._budget.used_bytes == 0
    assert reader.read_for_browser(location, 240, 1) is not None
    key = ("line-1:1:1", "line-1", location.sha256, 160)
    with held(reader._list_locks(key, None)), pytest.raises(KafkaUnavailableError):
        reader.read_for_browser(location, 160, 2)
    assert not any(lock.locked() for lock in reader._list_locks(key, 2)), "a refused picture keeps no other picture waiting"
    reader.close()


def test_a_long_conversion_keeps_no_picture_of_another_account_waiting_for_long(tmp_path: Path) -> None:
    settings = Settings(store=StoreSettings(url=str(tmp_path)), lines=(LineSettings(name="line-1"),))
    store, reader = ObjectStore(settings.store.url), PartPictureReader(settings, max_wait_s=0.2)
    locations = [locate(store, make_jpeg(seed)) for seed in range(3)]
    assert reader.read_for_browser(locations[0], 240) is not None
    pid = reader._decoder.pid
    assert pid is not None
    with ThreadPoolExecutor(1) as thread:
        os.kill(pid, signal.SIGSTOP)
        try:
            converted = thread.submit(reader.read_for_browser, locations[1], 240, 1)
            while not reader._decoder._lock.locked():
                time.sleep(0.01)
            for account in (2, None):
                with pytest.raises(KafkaUnavailableError, match="Too many pictures"):
                    reader.read_for_browser(locations[2], 240, account)
            assert reader.read_for_browser(locations[0], 240, 2) is not None, "a picture in the cache needs no conversion"
            assert not converted.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert converted.result(30) is not None
    assert reader.read_for_browser(locations[2], 240, 2) is not None
    reader.close()


def test_pictures_of_an_account_are_read_at_the_same_time(tmp_path: Path) -> None:
    together = Barrier(3)

    class BarrierReader(PartPictureReader):
        def read_original(self, part: PictureLocation) -> bytes | None:
            together.wait(20)
            return super().read_original(part)

    settings = Settings(store=StoreSettings(url=str(tmp_path)), lines=(LineSettings(name="line-1"),))
    store, reader = ObjectStore(settings.store.url), BarrierReader(settings)
    locations = [locate(store, make_jpeg(seed)) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        pictures = list(threads.map(lambda location: reader.read_for_browser(location, 240, 1), locations))
    reader.close()
    assert None not in pictures


def test_pictures_that_wait_for_their_conversion_take_limited_memory_and_leave_room_for_other_accounts() -> None:
    budget, entered, leaving = PictureBudget(1000), Queue[int](), [Event() for _ in range(12)]

    def hold(number: int, account: int, size: int) -> None:
        with budget.reserved(account) as reserve:
            reserve(size)
            entered.put(number)
            assert leaving[number].wait(20)

    with ThreadPoolExecutor(12) as threads:
        many = [threads.submit(hold, number, 1, 1000) for number in range(6)]
        first = {entered.get(timeout=20) for _ in range(3)}
        with pytest.raises(Empty):
            entered.get(timeout=0.3)
        assert budget.used_bytes == 3000, "one account holds at most three of the largest pictures"
        others = [threads.submit(hold, number, number, 1000) for number in range(6, 12)]
        for _ in range(5):
            assert entered.get(timeout=20) >= 6, "the other accounts have room"
        with pytest.raises(Empty):
            entered.get(timeout=0.3)
        assert budget.used_bytes == 8000, "all accounts hold at most eight of the largest pictures"
        leaving[first.pop()].set()
        assert entered.get(timeout=20) >= 6, "an account without a picture comes first"
        for event in leaving:
            event.set()
        for one in many + others:
            one.result(20)
    assert budget.used_bytes == 0


def test_small_pictures_that_wait_for_their_conversion_keep_no_other_picture_of_their_account_waiting() -> None:
    budget = PictureBudget(1000)
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(budget.reserved(1))(5)
        assert budget.used_bytes == 500
    assert budget.used_bytes == 0


def test_a_picture_that_finds_no_room_in_time_is_refused_and_keeps_no_other_picture_waiting() -> None:
    budget = PictureBudget(1000, max_wait_s=0.2)
    with ExitStack() as held, ExitStack() as first:
        first.enter_context(budget.reserved(1))
        for account in (1, 1, 2, 2, 2, 3, 3):
            held.enter_context(budget.reserved(account))
        with pytest.raises(KafkaUnavailableError, match="Too many pictures"), budget.reserved(4):
            pass
        assert budget.used_bytes == 8000
        first.close()
        with budget.reserved(1):
            assert budget.used_bytes == 8000, "account 4 has fewer bytes, but it no longer waits"
    assert budget.used_bytes == 0


def test_a_picture_is_shown_after_a_failure_of_the_decoding_process(
    stored: tuple[ObjectStore, PartPictureReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = stored
    location = locate(store, make_jpeg(1))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nonexistent/python")
        with pytest.raises(PictureError, match="could not start"):
            reader.read_for_browser(location, 240)
    assert reader.read_for_browser(location, 240) is not None


def test_a_picture_that_exists_nowhere_is_none(make_settings: MakeSettings) -> None:
    settings = make_settings()
    location, reader = send_picture(settings, make_jpeg(1)), PartPictureReader(settings)
    assert reader.read_original(FakeLocation(image_topic=location.image_topic, image_partition=0, image_offset=10**9)) is None
    assert reader.read_original(FakeLocation(picture="pictures/00/" + "0" * 64)) is None
    assert reader.read_original(FakeLocation()) is None
    reader.close()


def test_the_store_is_read_first_and_kafka_if_the_store_has_deleted_the_picture(make_settings: MakeSettings) -> None:
    settings = make_settings()
    location, reader = send_picture(settings, make_jpeg(1)), PartPictureReader(settings)
    location.picture = ObjectStore(settings.store.url).put(make_jpeg(2))
    assert reader.read_original(location) == make_jpeg(2)
    (Path(settings.store.url.get_secret_value()) / location.picture).unlink()
    assert reader.read_original(location) == make_jpeg(1)
    reader.close()


def test_a_picture_with_another_checksum_is_refused(make_settings: MakeSettings) -> None:
    settings = make_settings()
    location, reader = send_picture(settings, make_jpeg(1)), PartPictureReader(settings)
    location.sha256 = hashlib.sha256(make_jpeg(2)).hexdigest()
    with pytest.raises(PictureError, match="Another picture"):
        reader.read_original(location)
    reader.close()


def test_a_picture_of_12_bits_is_shown_with_the_depth_of_its_line(tmp_path: Path) -> None:
    """Without the depth, the picture would be refused as too dark."""
    settings = Settings(store=StoreSettings(url=str(tmp_path)), lines=(LineSettings(name="line-1", depth_bits=12),))
    levels = np.round(camera_pictures(1)[0] * (4095 / 255)).astype(np.uint16)
    location = FakeLocation(picture=ObjectStore(settings.store.url).put(make_png(levels)))
    reader = PartPictureReader(settings)
    for side_px in (None, 64):
        picture = reader.read_for_browser(location, side_px)
        assert picture is not None
        with Image.open(io.BytesIO(picture.value)) as shown:
            assert np.asarray(shown.convert("L")).mean() == pytest.approx(camera_pictures(1)[0].mean(), abs=2)
    reader.close()


def test_a_forged_verdict_shows_no_picture_of_another_part_or_line(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("line-1", "uploads"))
    names, producer = TopicNames(settings.topics.prefix), ConfirmedProducer(settings)
    private = make_jpeg(1)
    topic, sha256 = names.images("uploads"), hashlib.sha256(private).hexdigest()
    partition, offset = producer.send(topic, "uploads:7:1", private)
    producer.close()
    reader = PartPictureReader(settings)
    place: dict[str, Any] = {"image_topic": topic, "image_partition": partition, "image_offset": offset, "sha256": sha256}
    owner = FakeLocation(line="uploads", part_key="uploads:7:1", **place)
    assert reader.read_for_browser(owner) is not None
    assert reader.read_original(FakeLocation(**place)) is None
    assert reader.read_for_browser(FakeLocation(**place)) is None, "the picture in the cache is of another part"
    with pytest.raises(PictureError, match="belongs to part uploads:7:1"):
        reader.read_for_browser(FakeLocation(line="uploads", part_key="uploads:7:2", **place))
    reader.close()


def test_places_that_do_not_exist_are_answered_at_once(make_settings: MakeSettings) -> None:
    settings = make_settings()
    location, reader = send_picture(settings, make_jpeg(1)), PartPictureReader(settings)
    assert reader.read_original(location) == make_jpeg(1)
    started_s = time.monotonic()
    for number in range(12):
        assert reader.read_original(replace(location, image_partition=100 + number)) is None
        assert reader.read_original(replace(location, image_offset=10**9 + number)) is None
    assert time.monotonic() - started_s < 8, "one such place used to take 4 s"
    assert reader.read_original(location) == make_jpeg(1)
    reader.close()


def test_a_finding_shows_heat_maps_and_no_other_object(make_settings: MakeSettings) -> None:
    settings = make_settings()
    store, reader = ObjectStore(settings.store.url), PartPictureReader(settings)
    heat_map = encode(np.zeros((8, 8), np.uint8), "PNG")
    assert reader.read_heat_map(store.put(heat_map, "maps")).value
    for address in (store.put(heat_map), store.put(heat_map, "studies")):
        with pytest.raises(PictureError, match="expected the address of a heat map"):
            reader.read_heat_map(address)
    reader.close()


def test_only_image_topics_are_read(make_settings: MakeSettings) -> None:
    settings = make_settings()
    names, producer = TopicNames(settings.topics.prefix), ConfirmedProducer(settings)
    partition, offset = producer.send(names.models, "line-1", b"{}")
    producer.close()
    reader = PartPictureReader(settings)
    assert reader.read_original(FakeLocation(image_topic=names.models, image_partition=partition, image_offset=offset)) is None
    assert reader.read_original(FakeLocation(image_topic="__consumer_offsets", image_partition=0, image_offset=0)) is None


def test_without_kafka_an_error_is_raised_at_once(tmp_path: Path) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap=f"127.0.0.1:{free_ports()}"), lines=Settings.model_validate({"lines": [{"name": "line-1"}]}).lines
    )
    with pytest.raises(KafkaUnavailableError, match="Kafka did not accept the record"):
        ConfirmedProducer(settings).send("castings.images.line-1", "line-1:1:1", b"x")
    with pytest.raises(KafkaUnavailableError, match="cannot be read now"):
        PartPictureReader(settings).read_original(FakeLocation(image_topic="castings.images.line-1", image_partition=0, image_offset=0))


@pytest.mark.parametrize(
    "address",
    [
        "../secret",
        "/etc/passwd",
        "pictures/../../secret",
        "pictures//x",
        ".hidden",
        "file:///etc/passwd",
        "s3://b/x",
        "a\\..\\b",
        "a/./b",
        "",
        "a\0b",
        "a" * 3000,
    ],
)
def test_an_address_that_leads_out_of_the_store_is_refused(tmp_path: Path, address: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(PictureError, match="within the store"):
        read_object(str(tmp_path / "store"), address, 1000)


def test_a_link_that_leads_out_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PictureError, match="leads out of it"):
        read_object(str(tmp_path / "store"), "link", 1000)


def test_an_object_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(2000))
    with pytest.raises(PictureError, match="at most 1000 bytes"):
        read_object(str(tmp_path), "big", 1000)
