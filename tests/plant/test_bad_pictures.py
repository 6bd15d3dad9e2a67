"""Hostile and odd records sent through the real pipeline: each gets a verdict or a dead letter, and harms no other record."""

from __future__ import annotations

import io
import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from kafka import KafkaProducer
from PIL import Image

from streams.object_store import ObjectStore
from streams.records import Verdict
from streams.settings import Settings
from streams.topics import TopicNames
from tests.bad_pictures import make_bad_pictures
from tests.conftest import MakeSettings
from tests.image_topics import make_jpeg, read_topic, read_verdicts, wait_for, wait_for_verdicts
from tests.processes import CASTLINE, CastlineProcess, make_environment

LINE, UPLOADS = "line-1", "uploads"
# Enough for every good picture of this test, and less than the picture of `make_memory_bomb` takes.
UPLOAD_MEMORY_BYTES = 2**25

# Key and headers of records that name no part.
NAMELESS: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
    (None, []),
    (b"", []),
    (b"line-1", []),
    (b"line-1:1", []),
    (b"line-1:0:1", []),
    (b"line-1:1:-1", []),
    (b"line-1:1:1:1", []),
    (b"line-1:one:1", []),
    (b"line-1:1_0:1", []),
    (b"line-1:1:99999999999999999999", []),
    (b"LINE 1:1:1", []),
    (b"line-2:1:1", []),
    (b"\xff\xfe:1:1", []),
    (b"x" * 5000, []),
    (None, [("line", b"line-1"), ("run", b"1")]),
    (None, [("line", b"line-1"), ("run", b"1"), ("part", b"zero")]),
    (None, [("line", b"other"), ("run", b"1"), ("part", b"1")]),
    (b"line-1:5:1", [("line", b"line-1"), ("run", b"1"), ("part", b"2")]),
    (b"line-1:5:1", [("line", b"\xff"), ("run", b"1"), ("part", b"1")]),
]

# Wrong headers of records that name a part.
WRONG_HEADERS: list[tuple[str, bytes]] = [
    ("captured_at", b"yesterday"),
    ("captured_at", b"2026-01-01T00:00:00"),
    ("captured_at", b"9999-12-31T23:59:59Z"),
    ("captured_at", b"0001-01-01T00:00:00+14:00"),
    ("captured_at", b"2019-12-31T23:59:59Z"),
    ("captured_at", b"\xff"),
    ("sha256", b"abc"),
    ("claim", b"x" * 5000),
    ("traceparent", b"x" * 5000),
]


def test_every_bad_picture_has_a_verdict_every_refused_one_a_dead_letter_and_good_ones_between_are_unharmed(
    make_settings: MakeSettings, models_root: Path, tmp_path: Path
) -> None:
    settings = make_settings(
        lines=(LINE, UPLOADS),
        pictures={"upload_memory_bytes": UPLOAD_MEMORY_BYTES, "upload_pixels": 50_000_000},
        model={"root": models_root, "version": "tiny", "runtime": "litert"},
        topics={"image_partitions": 1},
    )
    names = TopicNames(settings.topics.prefix)
    corpus = make_bad_pictures()
    assert len(corpus) >= 60
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, max_request_size=settings.topics.max_message_bytes)
    good, expected = [], {}
    for number, (name, value, outcome) in enumerate(corpus, start=1):
        part = f"{LINE}:1:{number}"
        expected[part] = (name, value, outcome)
        producer.send(names.images(LINE), key=part.encode(), value=value)
        good.append(f"{LINE}:2:{number}")
        producer.send(names.images(LINE), key=good[-1].encode(), value=make_jpeg(number))
    for key, headers in NAMELESS:
        producer.send(names.images(LINE), key=key, value=make_jpeg(1), headers=headers)
    claims = {
        f"{LINE}:3:1": (b"pictures/00/" + b"0" * 64, "claim-missing"),
        f"{LINE}:3:2": (b"../../../../etc/passwd", "claim-damaged"),
        f"{LINE}:3:3": (b"file:///etc/passwd", "claim-damaged"),
    }
    for part, (bad_claim, _) in claims.items():
        producer.send(names.images(LINE), key=part.encode(), value=b"", headers=[("claim", bad_claim)])
    claim = ObjectStore(settings.store.url).put(make_jpeg(77, side_px=400))
    producer.send(names.images(LINE), key=f"{LINE}:3:4".encode(), value=b"", headers=[("claim", claim.encode())])
    producer.send(names.images(LINE), key=f"{LINE}:3:5".encode(), value=make_jpeg(5), headers=[("sha256", b"0" * 64)])
    producer.send(names.images(LINE), key=f"{LINE}:3:6".encode(), value=None)
    producer.send(names.images(LINE), key=f"{LINE}:3:7".encode(), value=make_jpeg(7), headers=[("content-type", b"text/html")])
    send_wrong_headers(producer, names.images(LINE))
    uploads = {f"{UPLOADS}:1:1": make_jpeg(1), f"{UPLOADS}:1:2": make_memory_bomb(), f"{UPLOADS}:1:3": make_jpeg(3)}
    for part, value in uploads.items():
        producer.send(names.images(UPLOADS), key=part.encode(), value=value)
    producer.close()
    verdict_count = 2 * len(corpus) + len(claims) + 4 + len(WRONG_HEADERS) + 1 + len(uploads)

    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        wait_for_verdicts(settings, verdict_count, 120)
        wait_for(lambda: inspector.metric("castline_consumer_lag_records") == 0, 30, "expected everything to be committed")
        verdicts: dict[str, Verdict] = {str(verdict.part_id): verdict for verdict in read_verdicts(settings)}
        assert inspector.stop() == 0
    assert len(verdicts) == len(read_verdicts(settings)) == verdict_count

    dead_letters = read_topic(settings, names.dead_letters)
    by_part = {
        (key or b"").decode(errors="replace"): (value, headers)
        for key, value, headers in zip(dead_letters.keys, dead_letters.values, dead_letters.headers, strict=True)
    }
    for part in good:
        assert verdicts[part].reason == "", f"a good picture was harmed: {verdicts[part]}"
    for part, (name, value, outcome) in expected.items():
        refused = verdicts[part].defect_probability is None
        assert outcome == "either" or refused == (outcome == "refused"), f"{name}: {verdicts[part]}"
        if refused:
            dead_value, dead_headers = by_part[part]
            assert verdicts[part].label == "review"
            assert verdicts[part].reason == dead_headers["dead-reason"].decode() != ""
            assert (dead_value or b"") == value, f"{name}: the dead letter holds the original bytes"
            assert dead_headers["dead-topic"].decode() == names.images(LINE)
        else:
            assert part not in by_part, f"{name}: it was judged and became a dead letter"
    for part, (_, reason) in claims.items():
        assert verdicts[part].reason == reason
    assert verdicts[f"{LINE}:3:4"].image.width_px == 400
    assert verdicts[f"{LINE}:3:5"].reason == "checksum"
    assert verdicts[f"{LINE}:3:6"].reason == "empty"
    assert verdicts[f"{LINE}:3:7"].reason == "", "a wrong content type does not spoil a picture"

    check_wrong_headers(verdicts, by_part)
    assert [verdicts[part].reason for part in uploads] == ["", "decoder-limits", ""], "an upload that takes too much memory harms no other"

    nameless = [headers for headers in dead_letters.headers if headers["dead-reason"] == b"identity"]
    assert len(nameless) == len(NAMELESS)
    assert all(b"expected" in headers["dead-detail"] for headers in nameless)
    assert all(
        value == make_jpeg(1)
        for value, headers in zip(dead_letters.values, dead_letters.headers, strict=True)
        if headers["dead-reason"] == b"identity"
    )

    # The commands with which an operator looks into it.
    listing = castline(settings, "dead-letters", "list", "--reason", "checksum")
    (line,) = listing.splitlines()
    assert f"{LINE}:3:5" in line
    file = tmp_path / "letter"
    castline(settings, "dead-letters", "save", line.split()[0], str(file))
    assert file.read_bytes() == make_jpeg(5)
    story = json.loads(castline(settings, "trace", f"{LINE}:3:5", "--json"))
    assert [step["what"] for step in story] == ["photographed", "picture on Kafka", "received by an inspector", "judged", "dead letter"]
    assert story[3]["reason"] == story[4]["dead-reason"] == "checksum"
    with pytest.raises(subprocess.CalledProcessError) as failure:
        castline(settings, "trace", f"{LINE}:99:1")
    assert failure.value.returncode == 1


def send_wrong_headers(producer: KafkaProducer, topic: str) -> None:
    """Sends a picture with each of WRONG_HEADERS, and one whose Kafka time is that of a clock without a battery."""
    for number, header in enumerate(WRONG_HEADERS, start=1):
        producer.send(topic, key=f"{LINE}:4:{number}".encode(), value=make_jpeg(number), headers=[header])
    producer.send(topic, key=f"{LINE}:4:99".encode(), value=make_jpeg(1), timestamp_ms=0)


def check_wrong_headers(verdicts: dict[str, Verdict], letters: dict[str, tuple[bytes | None, dict[str, bytes]]]) -> None:
    for number in range(1, len(WRONG_HEADERS) + 1):
        verdict, (value, headers) = verdicts[f"{LINE}:4:{number}"], letters[f"{LINE}:4:{number}"]
        assert (verdict.label, verdict.reason) == ("review", "wrong-header")
        assert abs(verdict.captured_at - verdict.decided_at) < timedelta(days=1), "the time of the Kafka record replaces the wrong one"
        assert (value, headers["dead-reason"]) == (make_jpeg(number), b"wrong-header")
    odd = verdicts[f"{LINE}:4:99"]
    assert (odd.reason, odd.captured_at.year) == ("", odd.decided_at.year)


def make_memory_bomb() -> bytes:
    """Returns a PNG of 49 megapixels, which the limit of pixels allows."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((7000, 7000)).save(buffer, "PNG")
    return buffer.getvalue()


def castline(settings: Settings, *arguments: str) -> str:
    """Runs a `castline` command and returns its output."""
    return subprocess.run([CASTLINE, *arguments], env=make_environment(settings), check=True, capture_output=True, text=True).stdout
