"""The command `castline replay`: judges old pictures again with another model version, and lists the parts whose label changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from agents.inspector.decoding import ImageRecord, decode_image, read_image_record
from agents.inspector.judging import JudgedImage, LineRules, judge_images
from models.inference.ensemble import Ensemble
from models.inference.soft_vote import Prediction
from streams.errors import CastlineError, IdentityError, RecordError
from streams.identity import make_header_map
from streams.kafka import read_to_end
from streams.live_line_settings import read_live_line_settings
from streams.object_store import ObjectStore
from streams.printable import make_printable
from streams.record_producer import ConsumedRecord
from streams.record_reader import read_broker_time, read_record
from streams.records import Verdict
from streams.settings import LineSettings, Settings, load_settings
from streams.topics import TopicNames


class TimeParameter(click.ParamType):
    """Parses a time in the format of the records, RFC 3339. A time without a time zone is UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"expected a time such as 2026-01-31T12:00:00Z, found {value!r}", param, ctx)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


@click.command("replay")
@click.option("--from", "since", type=TimeParameter(), required=True, help="Judge pictures that reached Kafka at this time or later.")
@click.option("--to", "until", type=TimeParameter(), help="Judge pictures that reached Kafka before this time.  [default: now]")
@click.option("--model", "version", required=True, help="Version that judges the pictures: the name of a folder in model.root.")
@click.option("--line", "line", help="Judge the pictures of this line only.  [default: all lines]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(file: Path | None, since: datetime, until: datetime | None, version: str, line: str | None, as_json: bool) -> None:
    """Judge old pictures on Kafka again with another model version, and list the parts whose label changes. No gate moves.

    Write times as 2026-01-31T12:00:00Z. The settings of a line (`castline lines set`) apply here too.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from models.inference.ensemble import open_ensemble
    from models.registry import open_plant_registry

    settings = load_settings(file)
    until = until or datetime.now(UTC)
    if since >= until:
        raise click.UsageError(
            f"--from ({since.isoformat()}) is not before --to ({until.isoformat()}). Give an earlier --from or a later --to."
        )
    lines = [settings.find_line(line).name] if line is not None else [one.name for one in settings.lines]
    if not lines:
        raise CastlineError("The settings define no production line. Add at least one [[lines]] section.")
    model = settings.model
    ensemble = open_ensemble(
        open_plant_registry(settings).open_version(version),
        model.runtime,
        settings.batch.shapes,
        model.threads,
        detail_time_s=settings.inspector.detail_time_s,
    )
    rules = LineRules()
    rules.follow(read_live_line_settings(settings, "replay"))
    columns = (TextColumn("pictures judged again"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        report = summarise(ensemble.version_name, progress.track(replay(settings, lines, since, until, ensemble, rules)))
    click.echo(json.dumps(asdict(report), indent=2) if as_json else format_report(report))


@dataclass(frozen=True)
class VersionLabel:
    """The label that a model version gave to a picture. `probability` is None if the picture could not be judged."""

    label: str
    probability: float | None
    model: str


@dataclass(frozen=True)
class ReplayedPicture:
    """A picture that was judged again.

    - `part`: None if the image record names no part.
    - `was`: the label in the recorded verdict. None if there is no verdict.
    - `now`: the new label. None if the image record names no part.
    """

    part: str | None
    was: VersionLabel | None
    now: VersionLabel | None


@dataclass(frozen=True)
class LabelChange:
    """A part that got another label when it was judged again. `was` is the old label, and `now` is the new label."""

    part: str
    was: VersionLabel
    now: VersionLabel


@dataclass
class ReplayReport:
    """The result of a replay.

    - `pictures`: number of pictures that were judged again.
    - `nameless`: number of image records that name no part.
    - `changes`: number of parts for each change, such as "ok -> defect".
    - `parts`: the parts whose label changes.
    """

    model: str
    pictures: int = 0
    same: int = 0
    without_verdict: int = 0
    nameless: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    parts: list[LabelChange] = field(default_factory=list)


def summarise(model: str, replayed: Iterable[ReplayedPicture]) -> ReplayReport:
    """Counts the replayed pictures, and lists the parts whose label changes. `model` is the name of the version that judged again."""
    report = ReplayReport(model)
    for picture in replayed:
        if picture.part is None or picture.now is None:
            report.nameless += 1
            continue
        report.pictures += 1
        if picture.was is None:
            report.without_verdict += 1
        elif picture.was.label == picture.now.label:
            report.same += 1
        else:
            change = f"{picture.was.label} -> {picture.now.label}"
            report.changes[change] = report.changes.get(change, 0) + 1
            report.parts.append(LabelChange(picture.part, picture.was, picture.now))
    return report


def format_report(report: ReplayReport) -> str:
    """Returns the counts of a replay and one line for each part whose label changes."""
    lines = [
        f"{report.model} judged {report.pictures} pictures again: {report.same} got the same label, {len(report.parts)} another one, "
        f"{report.without_verdict} have no verdict yet. {report.nameless} image records name no part."
    ]
    lines += [f"  {change}: {count}" for change, count in sorted(report.changes.items())]
    for part in report.parts:
        was, now = part.was, part.now
        lines.append(
            f"{part.part}  {was.label} ({_format_probability(was.probability)}, {was.model}) -> "
            f"{now.label} ({_format_probability(now.probability)})"
        )
    return "\n".join(map(make_printable, lines))


def _format_probability(probability: float | None) -> str:
    return "unread" if probability is None else f"{probability:.3f}"


def replay(
    settings: Settings, lines: Iterable[str], since: datetime, until: datetime, ensemble: Ensemble, rules: LineRules | None = None
) -> Iterator[ReplayedPicture]:
    """Judges old pictures of `lines` again with `ensemble`. Yields one result for each image record.

    Only pictures that reached Kafka at or after `since` and before `until` are judged. `rules` says how each line decides about a label,
    for example with its own threshold. If `rules` is None, the threshold of the version decides.
    """
    store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
    size = min(settings.batch.size, ensemble.max_batch)
    for name in lines:
        line = settings.find_line(name)
        labels = _read_labels(settings, name, since)
        batch: list[ImageRecord] = []
        for record, appended_at in _read_images(settings, line, since, until):
            try:
                batch.append(read_image_record(record, line, appended_at, appended_at))
            except (IdentityError, RecordError):
                yield ReplayedPicture(None, None, None)
                continue
            if len(batch) == size:
                yield from _compare(judge_again(batch, ensemble, settings, store, rules), labels, ensemble.version_name)
                batch = []
        yield from _compare(judge_again(batch, ensemble, settings, store, rules), labels, ensemble.version_name)


def judge_again(
    batch: Sequence[ImageRecord], ensemble: Ensemble, settings: Settings, store: ObjectStore, rules: LineRules | None = None
) -> list[JudgedImage]:
    """Decodes the pictures of `batch`, and judges them in one call of the networks. The labels are those that an inspector would give."""
    images = []
    for image in batch:
        decoded = decode_image(image, ensemble.side_px, settings.pictures, store, keep_original=ensemble.details is not None)
        regions = rules.find_regions(image.part.line) if rules else None
        images.append(decoded.search_details(ensemble.details, regions).check(ensemble.part_reference))
    if rules is None:
        return judge_images(images, ensemble)
    own_rules = [rules.find(image.part.line, ensemble.version) for image in batch]
    return [rule.apply(image) for rule, image in zip(own_rules, judge_images(images, ensemble, own_rules), strict=True)]


# Topic, partition and offset of an image record.
_Position = tuple[str, int, int]


def _read_images(settings: Settings, line: LineSettings, since: datetime, until: datetime) -> Iterator[tuple[ConsumedRecord, datetime]]:
    """Yields the image records that reached Kafka at or after `since` and before `until`, each with its time of arrival."""
    topic = TopicNames(settings.topics.prefix).images(line.name)
    for record in read_to_end(settings, "replay", [topic], since):
        appended_at = read_broker_time(record.timestamp / 1000)
        # Check the time of every record. The records of a partition are not always in the order of their times, because the clocks of
        # the producers differ.
        if since <= appended_at < until:
            yield (
                ConsumedRecord(topic, record.partition, record.offset, record.key, record.value, make_header_map(record.headers)),
                appended_at,
            )


def _read_labels(settings: Settings, line: str, since: datetime) -> dict[_Position, VersionLabel]:
    """Returns the label in the first verdict on each picture. The keys of the result say where in Kafka the picture is."""
    labels: dict[_Position, VersionLabel] = {}
    for record in read_to_end(settings, "replay", [TopicNames(settings.topics.prefix).verdicts(line)], since):
        try:
            verdict = read_record(Verdict, record.value, read_broker_time(record.timestamp / 1000))
        except RecordError:
            continue
        image = verdict.image
        label = VersionLabel(verdict.label, verdict.defect_probability, verdict.model)
        labels.setdefault((image.topic, image.partition, image.offset), label)
    return labels


def _compare(batch: list[JudgedImage], labels: dict[_Position, VersionLabel], model: str) -> Iterator[ReplayedPicture]:
    for judged in batch:
        image = judged.decoded.record
        record = image.source
        probability = judged.prediction.defect_probability if isinstance(judged.prediction, Prediction) else None
        now = VersionLabel(judged.label, probability, model)
        yield ReplayedPicture(str(image.part), labels.get((record.topic, record.partition, record.offset)), now)
