"""Sends mutated pictures through running roles, over a real Kafka broker, and checks that each of them is answered exactly once.

    record of a camera's line -----------------------------> inspector -> a verdict, and a dead letter if the picture is unreadable
    record of the upload line ----------------------------->     |
    file in a drop folder -> gateway, accepts or refuses -->     |        archivist stores each verdict
    request over HTTP -----> gateway, accepts or refuses -->     |        station shows the pages of judged and unreadable parts
    upload by the API -----> station, accepts or refuses -->     +

Every picture is sent twice: as a record, and through the gateway or the station. The pictures are sent in groups, and the next group is
sent when the previous one is answered. So no more pictures than those of one group are in memory.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
from kafka import KafkaProducer

from deploy.supervisor.ports import free_ports
from models.pictures.part_reference import PART_REFUSALS
from models.registry import BUNDLED_VERSIONS
from models.synthetic import render_series
from streams.identity import PartId
from streams.records import Verdict
from streams.settings import Settings
from streams.topics import TopicNames
from tests.image_topics import TopicReader
from tests.picture_mutations import MUTATED_FORMS, MutationKind, encode_form, list_kinds, mutated_pictures
from tests.plant.part_rows import count_part_rows
from tests.running_roles import RunningRoles, own_broker
from tests.station.browser.plant import HttpUser, create_account

CAMERA, UPLOADS, FOLDER, HTTP = "line-1", "uploads", "line-2", "line-3"
LINES = (CAMERA, UPLOADS, FOLDER, HTTP)
# The ways of the pictures bear the names of their lines, except for this one, whose pictures belong to the line UPLOADS.
STATION = "station"
WAYS = {
    CAMERA: "record of a camera's line",
    UPLOADS: "record of the upload line",
    FOLDER: "file in a drop folder",
    HTTP: "request over HTTP",
    STATION: "upload by the station's API",
}
INTACT = "none"
GROUP_PICTURES = 400

# The run of the parts whose records this module sends itself. The runs of gateway and station are times in seconds.
_RUN = 1
_TOKEN = "upload"
_ADMINISTRATOR = "anna"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif"}
_CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "BMP": "image/bmp", "TIFF": "image/tiff"}
_RAW_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
_NAMED_IN_LOG = re.compile(r"does not read (\S+) in the folder")
_MAX_LISTED = 20


def make_lines(folder: Path) -> tuple[dict[str, object], ...]:
    """Returns the lines of the campaign for `Settings`. `folder` will hold the drop folder."""
    drop = {"kind": "drop", "path": str(folder / "drop"), "settle_s": 0.05, "end_wait_s": 0.2}
    return ({"name": CAMERA}, {"name": UPLOADS}, {"name": FOLDER, "camera": drop}, {"name": HTTP, "camera": {"kind": "http"}})


def make_sections(folder: Path) -> dict[str, dict[str, object]]:
    """Returns the sections of the campaign for `Settings`: the bundled model version, and a station with its database below `folder`."""
    return {
        "model": {"root": BUNDLED_VERSIONS, "version": "demo", "runtime": "tensorflow"},
        "station": {
            "port": free_ports(),
            "database": str(folder / "station.sqlite3"),
            "secret_key_file": folder / "station.key",
            "upload_line": UPLOADS,
            "uploads_per_minute": 100_000,
        },
    }


def run_with_own_broker(seed: int, count: int) -> bool:
    """Sends `count` mutated pictures through roles with a broker and a folder of their own, and prints progress and counts.

    Returns whether nothing fell short.
    """
    with tempfile.TemporaryDirectory(prefix="castline-pictures-") as name:
        folder = Path(name)
        with (
            own_broker(folder, {"lines": make_lines(folder), **make_sections(folder)}) as settings,
            RoleCampaign(settings, folder, lambda text: print(text, flush=True)) as campaign,
        ):
            campaign.run(mutated_pictures(seed, count), page_samples=len(list_kinds()) * 2)
    print(campaign.answers.describe())
    return not campaign.answers.shortcomings


@dataclass
class WayCount:
    """What became of the pictures that went one way. The `refused` and `left` ones were not accepted, so they get no verdict."""

    sent: int = 0
    refused: int = 0
    left: int = 0
    judged: int = 0
    unreadable: int = 0

    @property
    def missing(self) -> int:
        """The number of pictures without any answer yet."""
        return self.sent - self.refused - self.left - self.judged - self.unreadable


@dataclass
class AnswerBook:
    """Holds which pictures were sent, by their SHA-256, and compares them with the verdicts and dead letters that were read.

    Whatever is wrong is added to `shortcomings` as a sentence. `labels` counts the verdicts by line and label, and `reasons` counts the
    unreadable pictures by the reason of their verdict. `samples` holds one part for each way, kind, and answer (judged or not).
    """

    ways: dict[str, WayCount] = field(default_factory=lambda: {way: WayCount() for way in WAYS})
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    samples: dict[tuple[str, MutationKind, bool], PartId] = field(default_factory=dict)
    shortcomings: list[str] = field(default_factory=list)
    _kinds: dict[str, MutationKind] = field(default_factory=dict)
    # The pictures of each way, by SHA-256, that have no answer yet. Two mutations may give the same picture.
    _awaited: Counter[tuple[str, str]] = field(default_factory=Counter)
    # SHA-256 and reason of the unreadable pictures, by part, and the same from the dead letters.
    _unreadable: dict[str, tuple[str, str]] = field(default_factory=dict)
    _dead: dict[str, tuple[str, str]] = field(default_factory=dict)
    # Why each picture is unreadable, by SHA-256, or "" if it was judged. All ways must give the same answer.
    _answers: dict[str, str] = field(default_factory=dict)
    _not_accepted: set[str] = field(default_factory=set)
    _parts: set[PartId] = field(default_factory=set)

    @property
    def missing(self) -> int:
        """The number of verdicts and dead letters that are still to come."""
        return sum(way.missing for way in self.ways.values()) + sum(part not in self._dead for part in self._unreadable)

    def add_sent(self, way: str, kind: MutationKind, sha256: str) -> None:
        self._kinds[sha256] = kind
        self._awaited[way, sha256] += 1
        self.ways[way].sent += 1

    def add_unsent(self, way: str, sha256: str, is_refused: bool) -> None:
        """Notes that a picture was refused with a reason, or that the gateway left its file in the folder and named it in its log."""
        self._awaited[way, sha256] -= 1
        self._not_accepted.add(sha256)
        if is_refused:
            self.ways[way].refused += 1
        else:
            self.ways[way].left += 1

    def add_verdict(self, verdict: Verdict) -> None:
        part, sha256 = verdict.part_id, verdict.image.sha256
        if part in self._parts:
            self.shortcomings.append(f"Part {part} has more than one verdict.")
            return
        self._parts.add(part)
        name = STATION if part.line == UPLOADS and part.run != _RUN else part.line
        if self._awaited[name, sha256] < 1:
            self.shortcomings.append(f"Part {part} has a verdict on a picture that was not sent, or has an answer already: {sha256}.")
            return
        self._awaited[name, sha256] -= 1
        self.labels[part.line, verdict.label] += 1
        kind, way = self._kinds[sha256], self.ways[name]
        # A picture of something else than the whole part was decoded. It has the label `review`, but no dead letter.
        is_judged = verdict.defect_probability is not None or verdict.reason in PART_REFUSALS
        self.samples.setdefault((name, kind, is_judged), part)
        answer = "" if is_judged else verdict.reason
        if self._answers.setdefault(sha256, answer) != answer:
            self.shortcomings.append(
                f"Part {part} ({kind}) has the answer {answer!r}, but elsewhere the picture has {self._answers[sha256]!r}."
            )
        if is_judged:
            way.judged += 1
            if kind.must_be_refused:
                self.shortcomings.append(f"Part {part} was judged as {verdict.label}, although {kind} must be refused.")
            return
        way.unreadable += 1
        self.reasons[verdict.reason] += 1
        self._unreadable[str(part)] = (sha256, verdict.reason)
        if verdict.label != "review" or not verdict.reason:
            self.shortcomings.append(
                f"Part {part} could not be judged, but has the label {verdict.label} and the reason {verdict.reason!r}."
            )
        if kind.mutation == INTACT:
            self.shortcomings.append(f"The picture of part {part} is intact ({kind.form}), but was refused: {verdict.reason}.")

    def add_dead_letter(self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        part = (key or b"").decode(errors="replace")
        if part in self._dead:
            self.shortcomings.append(f"Part {part} has more than one dead letter.")
        self._dead[part] = (hashlib.sha256(value or b"").hexdigest(), headers["dead-reason"].decode())

    def finish(self) -> None:
        """Adds to the shortcomings what is missing, and what was refused at one place and judged at another one."""
        for sha256 in self._not_accepted:
            if self._answers.get(sha256) == "":
                self.shortcomings.append(f"A picture was judged as a record, but not accepted as a file or upload: {self._kinds[sha256]}.")
        for name, way in self.ways.items():
            if way.missing:
                kinds = Counter(str(self._kinds[sha256]) for (at, sha256), count in self._awaited.items() if at == name and count > 0)
                first = "; ".join(f"{kind} {count}" for kind, count in kinds.most_common(5))
                self.shortcomings.append(f"{way.missing} pictures ({WAYS[name]}) have no answer. The most frequent kinds are: {first}.")
        for part in sorted(self._unreadable.keys() | self._dead.keys()):
            if self._unreadable.get(part) != self._dead.get(part):
                self.shortcomings.append(f"Part {part}: verdict {self._unreadable.get(part)}, but dead letter {self._dead.get(part)}.")

    def describe(self) -> str:
        """Returns the counts as Markdown tables, and the shortcomings."""
        rows = [
            "| way | sent | judged | unreadable: `review` and dead letter | refused with a reason | left in the folder, named in the log |"
        ]
        rows += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        rows += [
            f"| {WAYS[name]} | {way.sent} | {way.judged} | {way.unreadable} | {way.refused} | {way.left} |"
            for name, way in self.ways.items()
        ]
        rows += [
            "",
            "Reasons of unreadable pictures: " + ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common()) + ".",
        ]
        if self.shortcomings:
            rows += ["", f"{len(self.shortcomings)} shortcomings:", *self.shortcomings[:_MAX_LISTED]]
        else:
            rows += ["", "No role crashed, hung or restarted. Every picture has exactly one answer, and the archive has every verdict."]
        return "\n".join(rows)


class RoleCampaign:
    """Runs an inspector, a gateway, an archivist and a station, and sends pictures through them. `answers` holds what became of them.

    `report` is called with a sentence about the progress after each group of pictures.
    """

    def __init__(self, settings: Settings, folder: Path, report: Callable[[str], None]) -> None:
        """The topics of `settings` must exist. `folder` gets the logs of the roles and their settings file."""
        self._settings = settings
        self._folder = folder
        self._report = report
        self._names = TopicNames(settings.topics.prefix)
        self._drop = folder / "drop"
        self._http = requests.Session()
        # The number of pictures that were sent of each kind.
        self._numbers = Counter[str]()
        # The files in the drop folder without an answer, with the SHA-256 of each.
        self._files: dict[str, str] = {}
        # The files that the gateway's log names because they stay in the folder, and the position up to which the log was read.
        self._named: set[str] = set()
        self._log_at = 0
        self._stack = ExitStack()
        self.answers = AnswerBook()
        self._roles = RunningRoles(settings, folder, self.answers.shortcomings)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._roles.start(stack, {role: (role,) for role in ("inspector", "station", "archivist", "gateway")}, {"token": _TOKEN})
            create_account(self._settings, _ADMINISTRATOR, "administrator")
            self._verdicts = stack.enter_context(TopicReader(self._settings, *(self._names.verdicts(line) for line in LINES)))
            self._dead_letters = stack.enter_context(TopicReader(self._settings, self._names.dead_letters))
            self._producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap)
            stack.callback(self._producer.close)
            stack.callback(self._http.close)
            self._gateway_url = (self._settings.service.run_dir / "gateways" / HTTP).read_text().strip()
            self._station_url = f"http://127.0.0.1:{self._settings.station.port}"
            self._user = HttpUser(self._station_url, _ADMINISTRATOR)
            self._station_token = self._user.create_token()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def run(self, pictures: Iterable[tuple[MutationKind, bytes]], page_samples: int) -> None:
        """Sends all `pictures`, then an intact one of each form, opens the pages of up to `page_samples` parts, and stops the roles.

        The results and everything that fell short are in `answers`.
        """
        remaining = iter(pictures)
        while self._roles.is_sound() and (group := list(islice(remaining, GROUP_PICTURES))):
            for kind, value in group:
                self._send(kind, value, *_choose_ways(self._numbers[str(kind)]))
                self._numbers[str(kind)] += 1
            self._wait_for_answers()
        if self._roles.is_sound():
            for kind, value in _make_intact_pictures():
                for turn in range(3):
                    self._send(kind, value, *_choose_ways(turn))
            self._wait_for_answers()
        if self._roles.is_sound():
            self._wait_for_archive()
            self._open_pages(page_samples)
            self._roles.is_sound()
        self._roles.stop()
        self._read_answers()
        self.answers.finish()

    def _send(self, kind: MutationKind, value: bytes, line: str, way: str) -> None:
        """Sends a picture as a record of `line`, and once more by `way`, which leads through the gateway or the station."""
        sha256 = hashlib.sha256(value).hexdigest()
        for name in (line, way):
            self.answers.add_sent(name, kind, sha256)
        part = PartId(line, _RUN, self.answers.ways[line].sent)
        self._producer.send(self._names.images(line), key=part.key, value=value)
        if way == FOLDER:
            # Half of the names do not tell that the file is a picture. The gateway then looks at the content alone.
            name = f"{self.answers.ways[way].sent:06}" + (_find(_SUFFIXES, kind) if _draw(sha256, 2) else "")
            (self._drop / name).write_bytes(value)
            self._files[name] = sha256
        elif way == HTTP:
            self._post(way, f"{self._gateway_url}/lines/{HTTP}/pictures", _TOKEN, kind, value)
        else:
            self._post(way, f"{self._station_url}/api/inspections", self._station_token, kind, value)

    def _post(self, way: str, url: str, token: str, kind: MutationKind, value: bytes) -> None:
        """Uploads a picture: as a picture, as bytes of a type that says nothing, or in a form. A refusal must give its reason."""
        sha256, headers = hashlib.sha256(value).hexdigest(), {"Authorization": f"Bearer {token}"}
        drawn, content_types = _draw(sha256, 4), (_find(_CONTENT_TYPES, kind), *_RAW_TYPES)
        if drawn < len(content_types):
            headers["Content-Type"] = content_types[drawn]
            answer = self._http.post(url, data=value, headers=headers, timeout=60)
        else:
            files = {"picture": ("picture", value, _find(_CONTENT_TYPES, kind))}
            answer = self._http.post(url, files=files, headers=headers, timeout=60)
        if 400 <= answer.status_code < 500 and answer.json()["error"]:
            self.answers.add_unsent(way, sha256, is_refused=True)
        elif not answer.ok:
            self.answers.shortcomings.append(f"The answer to {kind} was {answer.status_code}: {answer.text[:200]}")

    def _wait_for_answers(self) -> None:
        """Waits until every picture that was sent has its answer, and reports the progress."""
        self._producer.flush(60)
        self._roles.wait(self._find_missing, "answers")
        sent = sum(way.sent for way in self.answers.ways.values())
        self._report(
            f"{sent} pictures sent to roles, {sum(self.answers.reasons.values())} of them unreadable, {self.answers.missing} missing"
        )

    def _find_missing(self) -> int:
        self._read_answers()
        self._read_drop_folder()
        return self.answers.missing + len(self._files)

    def _read_answers(self) -> None:
        verdicts = self._verdicts.read_new()
        for value in verdicts.values:
            self.answers.add_verdict(Verdict.decode(value or b""))
        letters = self._dead_letters.read_new()
        for key, value, headers in zip(letters.keys, letters.values, letters.headers, strict=True):
            self.answers.add_dead_letter(key, value, headers)

    def _read_drop_folder(self) -> None:
        """Finds out where the files of the drop folder are. Removes what the gateway has finished with."""
        with (self._folder / "gateway.log").open("rb") as log:
            log.seek(self._log_at)
            lines, newline, _ = log.read().rpartition(b"\n")
        self._log_at += len(lines + newline)
        self._named.update(_NAMED_IN_LOG.findall(lines.decode(errors="replace")))
        for name, sha256 in list(self._files.items()):
            if (sent := self._drop / "sent" / name).exists():
                if hashlib.sha256(sent.read_bytes()).hexdigest() != sha256:
                    self.answers.shortcomings.append(f"The gateway has changed the file {name}.")
                sent.unlink()
            elif (self._drop / "refused" / f"{name}.why").exists():
                self.answers.add_unsent(FOLDER, sha256, is_refused=True)
            elif name in self._named:
                (self._drop / name).unlink()
                self.answers.add_unsent(FOLDER, sha256, is_refused=False)
            else:
                continue
            del self._files[name]

    def _wait_for_archive(self) -> None:
        database = Path(self._settings.station.database)
        self._roles.wait(lambda: sum((self.answers.labels - count_part_rows(database)).values()), "rows of the archive")
        if surplus := count_part_rows(database) - self.answers.labels:
            self.answers.shortcomings.append(f"The archive has parts without a verdict in Kafka: {dict(surplus)}.")

    def _open_pages(self, count: int) -> None:
        """Opens the page of a sample of the parts, with picture, thumbnail and heat map, and pages that show many parts."""
        parts = list(self.answers.samples.values())
        opened = Counter[int]()
        for part in parts[:: max(1, -(-len(parts) // count))]:
            page = f"/parts/{part.line}/{part.run}/{part.part}/"
            if (status := self._user.get(page).status_code) != 200:
                self.answers.shortcomings.append(f"The station answers {status} to {page}.")
            opened.update(self._open(page + address) for address in ("picture", "picture?side=240", "heat-map"))
        for page in ("/", "/history/", "/history/?label=review", "/uploads/", *(f"/lines/{line}/" for line in LINES)):
            opened[self._open(page)] += 1
        self._report(
            "Pages and pictures of the station by status: " + ", ".join(f"{status}: {opened[status]}" for status in sorted(opened))
        )

    def _open(self, path: str) -> int:
        status = self._user.get(path).status_code
        if status >= 500:
            self.answers.shortcomings.append(f"The station answers {status} to {path}.")
        return status


def _choose_ways(turn: int) -> tuple[str, str]:
    """Returns the line of the record and the second way for the picture number `turn` of a kind. Six turns use all pairs."""
    return (CAMERA, UPLOADS)[turn % 2], (FOLDER, HTTP, STATION)[turn % 3]


def _draw(sha256: str, choices: int) -> int:
    """Returns a number below `choices` that only depends on the picture, and not on its turn, because kinds take turns, too."""
    return int(sha256, 16) % choices


def _make_intact_pictures() -> Iterator[tuple[MutationKind, bytes]]:
    casting = next(iter(render_series(1, seed=1)))
    for form in MUTATED_FORMS:
        yield MutationKind(form, INTACT), encode_form(casting.pixels, form)


def _find(table: Mapping[str, str], kind: MutationKind) -> str:
    """Returns the entry of `table` for the format of a picture, which is the last word of its form."""
    return table[kind.form.rpartition(" ")[2]]
