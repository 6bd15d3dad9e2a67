"""Pictures from Kafka and from the store: what browsers get, and what nobody gets."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from deploy.supervisor.ports import free_ports
from models.pictures.decoder import PictureLimits
from models.pictures.display import encode_for_browser, encode_heat_map_layer, encode_thumbnail, read_picture_header
from station.live.pictures import Pictures
from station.live.sending import KafkaAway, Outbox
from station.live.stored import read_stored
from streams.errors import PictureError
from streams.object_store import ObjectStore
from streams.settings import KafkaSettings, Settings
from streams.topics import TopicNames
from tests.bad_pictures import make_bad_pictures
from tests.conftest import MakeSettings
from tests.image_topics import make_jpeg

LIMITS = PictureLimits()


@dataclass
class Placed:
    """Where a picture lies, as a row of the archive says."""

    line: str = "line-1"
    picture: str = ""
    image_topic: str = ""
    image_partition: int | None = None
    image_offset: int | None = None
    sha256: str = ""


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def opened(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value))


def sent(settings: Settings, value: bytes, claim: str = "") -> Placed:
    """A picture on the image topic of line-1."""
    topic, outbox = TopicNames(settings.topics.prefix).images("line-1"), Outbox(settings)
    partition, offset = outbox.send(topic, "line-1:1:1", value, [("claim", claim.encode())] if claim else [])
    outbox.close()
    return Placed(image_topic=topic, image_partition=partition, image_offset=offset)


def test_a_picture_comes_from_its_place_on_kafka(make_settings: MakeSettings) -> None:
    settings = make_settings()
    values = [make_jpeg(seed) for seed in range(6)]
    places = [sent(settings, value) for value in values]
    source = Pictures(settings)
    assert [source.original(place) for place in places] == values
    picture = source.shown(places[0])
    assert picture is not None
    assert (picture.value, picture.content_type) == (values[0], "image/jpeg")
    source.close()


def test_many_who_ask_at_once_get_one_picture_that_was_read_once(make_settings: MakeSettings) -> None:
    settings = make_settings()
    placed = sent(settings, value := make_jpeg(1))
    placed.sha256 = hashlib.sha256(value).hexdigest()
    pictures, together = Pictures(settings), Barrier(12)

    def ask() -> object:
        together.wait(30)
        return pictures.shown(placed, 240)

    with ThreadPoolExecutor(12) as some:
        found = [one.result() for one in [some.submit(ask) for _ in range(12)]]
    pictures.close()
    assert found[0] is not None
    assert len({id(one) for one in found}) == 1


def test_a_large_picture_comes_from_its_claim(make_settings: MakeSettings) -> None:
    settings = make_settings()
    claim = ObjectStore(settings.store.url).put(make_jpeg(1))
    source = Pictures(settings)
    assert source.original(sent(settings, b"", claim)) == make_jpeg(1)
    with pytest.raises(PictureError, match="claim"):
        source.original(sent(settings, b"", "../../etc/passwd"))
    source.close()


def test_a_picture_that_is_nowhere_any_more_is_none(make_settings: MakeSettings) -> None:
    settings = make_settings()
    place, source = sent(settings, make_jpeg(1)), Pictures(settings)
    assert source.original(Placed(image_topic=place.image_topic, image_partition=0, image_offset=10**9)) is None
    assert source.original(Placed(picture="pictures/00/" + "0" * 64)) is None
    assert source.original(Placed()) is None
    source.close()


def test_the_store_goes_before_kafka_and_kafka_helps_where_the_store_has_dropped_it(make_settings: MakeSettings) -> None:
    settings = make_settings()
    place, source = sent(settings, make_jpeg(1)), Pictures(settings)
    place.picture = ObjectStore(settings.store.url).put(make_jpeg(2))
    assert source.original(place) == make_jpeg(2)
    (Path(settings.store.url) / place.picture).unlink()
    assert source.original(place) == make_jpeg(1)
    source.close()


def test_another_picture_in_its_place_is_refused(make_settings: MakeSettings) -> None:
    settings = make_settings()
    place, source = sent(settings, make_jpeg(1)), Pictures(settings)
    place.sha256 = hashlib.sha256(make_jpeg(2)).hexdigest()
    with pytest.raises(PictureError, match="another picture"):
        source.original(place)
    source.close()


def test_a_verdict_cannot_make_us_read_another_topic(make_settings: MakeSettings) -> None:
    settings = make_settings()
    names, outbox = TopicNames(settings.topics.prefix), Outbox(settings)
    partition, offset = outbox.send(names.models, "line-1", b"{}")
    outbox.close()
    source = Pictures(settings)
    assert source.original(Placed(image_topic=names.models, image_partition=partition, image_offset=offset)) is None
    assert source.original(Placed(image_topic="__consumer_offsets", image_partition=0, image_offset=0)) is None


def test_without_kafka_it_says_so_at_once(tmp_path: Path) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap=f"127.0.0.1:{free_ports()}"), lines=Settings.model_validate({"lines": [{"name": "line-1"}]}).lines
    )
    with pytest.raises(KafkaAway, match="Kafka did not take it"):
        Outbox(settings).send("castings.images.line-1", "line-1:1:1", b"x")
    with pytest.raises(KafkaAway, match="cannot be read now"):
        Pictures(settings).original(Placed(image_topic="castings.images.line-1", image_partition=0, image_offset=0))


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
        read_stored(str(tmp_path / "store"), address, 1000)


def test_a_link_that_leads_out_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PictureError, match="leads out of it"):
        read_stored(str(tmp_path / "store"), "link", 1000)


def test_what_is_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(2000))
    with pytest.raises(PictureError, match="at most 1000 bytes"):
        read_stored(str(tmp_path), "big", 1000)


@pytest.mark.parametrize(("form", "mode"), [("TIFF", "L"), ("BMP", "RGB"), ("JPEG", "CMYK"), ("TIFF", "CMYK")])
def test_what_browsers_do_not_show_becomes_png(form: str, mode: str) -> None:
    picture = encode_for_browser(encoded(Image.new(mode, (40, 30)), form), LIMITS)
    assert picture.content_type == "image/png"
    assert opened(picture.value).size == (40, 30)


def test_a_camera_of_12_bits_is_not_shown_black() -> None:
    wide = Image.fromarray(np.full((20, 20), 4095, np.uint16))
    for form in ("PNG", "TIFF"):
        assert opened(encode_for_browser(encoded(wide, form), LIMITS).value).getpixel((5, 5)) == 255


def test_a_heat_map_is_clear_where_nothing_is_and_red_where_it_is_hot() -> None:
    heat = np.zeros((8, 8), np.uint8)
    heat[2, 3] = 255
    light = opened(encode_heat_map_layer(encoded(Image.fromarray(heat), "PNG"), LIMITS).value)
    assert light.getpixel((3, 2)) == (255, 40, 0, 255)
    assert light.getpixel((0, 0)) == (255, 40, 0, 0)


def test_a_small_picture_is_upright_and_small() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", (900, 600)), "JPEG", exif=exif)
    assert opened(encode_thumbnail(turned, LIMITS, 240).value).size == (160, 240)
    assert (read_picture_header(turned, LIMITS).width_px, read_picture_header(turned, LIMITS).height_px) == (600, 900)


def test_no_hostile_picture_gets_through_or_breaks_anything() -> None:
    """Whatever goes out is what it says it is, and decodes within the limits."""
    limits, wrong = PictureLimits(max_pixels=20_000_000), []
    for name, value, expected in make_bad_pictures():
        for side_px in (None, 240):
            try:
                picture = encode_for_browser(value, limits) if side_px is None else encode_thumbnail(value, limits, side_px)
            except PictureError as error:
                if expected == "judged":
                    wrong.append((name, str(error)))
                continue
            if not picture.value.startswith({"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG"}[picture.content_type]):
                wrong.append((name, picture.content_type))
    assert wrong == []
