"""The table of parts: one row holds the content of all Kafka records about one part."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from django.db import models

# Python can convert the times from 1971 to 8999 to every time zone, and every browser can show them in a date field.
_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST = datetime(8999, 12, 31, tzinfo=UTC)

if TYPE_CHECKING:
    # mypy does not know the types of fields that Django does not contain. So mypy reads RecordTimeField as Django's DateTimeField.
    RecordTimeField = models.DateTimeField
else:

    class RecordTimeField(models.DateTimeField):
        """The time of a record. If the stored time is before 1971 or after 8999, Django returns the start of 1971 or the end of 8999.

        Release 0.1.0 could store any time. Python cannot convert the last hour of the year 9999 to a time zone east of UTC, for example.
        """

        def from_db_value(self, value, _expression, _connection):
            return None if value is None else min(max(value, _EARLIEST), _LATEST)

        def deconstruct(self):
            """Tells the migrations that this field is a DateTimeField of Django, because both have the same database column."""
            name, _, arguments, options = super().deconstruct()
            return name, "django.db.models.DateTimeField", arguments, options


# A sorting record with one of these reasons means that no verdict arrived in time, so the gate acted as the settings of the line say.
REASONS_WITHOUT_VERDICT = frozenset({"no-verdict", "late-verdict", "board-restarted"})

# The indexes for the history also contain the columns `model`, `defect_probability` and `action`. People filter the history by these
# columns, and the database can then check the filter in the index without reading the table.
_FILTERED = ("model", "defect_probability", "action")


class Part(models.Model):
    """One part, which is a casting that a line has counted.

    The columns come from several records, such as the verdict and the sorting. The columns of a record are empty until it arrives. If a
    part has several verdicts, the row holds the earliest one, because the gate acted on it.
    """

    line = models.CharField(max_length=40)
    run = models.BigIntegerField()
    part = models.BigIntegerField()
    # The time of the picture. If this time is unknown, it is the time at photo-eye 1, and if that is unknown too, the earliest known time.
    seen_at = RecordTimeField()

    verdict_id = models.UUIDField(null=True)
    label = models.CharField(max_length=8, blank=True, default="")
    defect_probability = models.FloatField(null=True)
    votes = models.JSONField(default=dict, blank=True)
    threshold = models.FloatField(null=True)
    model = models.CharField(max_length=64, blank=True, default="")
    reason = models.CharField(max_length=64, blank=True, default="")
    # The type of the largest defect in the verdict. Empty if the verdict names no type.
    verdict_kind = models.CharField(max_length=64, blank=True, default="")
    overdue = models.BooleanField(default=False)
    captured_at = RecordTimeField(null=True)
    received_at = RecordTimeField(null=True)
    decided_at = RecordTimeField(null=True)
    image_topic = models.CharField(max_length=249, blank=True, default="")
    image_partition = models.IntegerField(null=True)
    image_offset = models.BigIntegerField(null=True)
    sha256 = models.CharField(max_length=64, blank=True, default="")
    width_px = models.IntegerField(null=True)
    height_px = models.IntegerField(null=True)

    action = models.CharField(max_length=16, blank=True, default="")
    grade = models.CharField(max_length=64, blank=True, default="")
    sorted_reason = models.CharField(max_length=32, blank=True, default="")
    code = models.IntegerField(null=True)
    gate_moved = models.BooleanField(null=True)
    # Whether the photo-eye in the reject chute saw the part: `yes`, `no`, or `not-equipped` if the chute has no photo-eye. Empty if no gate
    # diverted the part.
    confirmed = models.CharField(max_length=16, blank=True, default="")
    late = models.BooleanField(null=True)
    counted_at = RecordTimeField(null=True)
    told_at = RecordTimeField(null=True)
    at_gate_at = RecordTimeField(null=True)
    sorted_at = RecordTimeField(null=True)

    finding_method = models.CharField(max_length=32, blank=True, default="")
    finding_boxes = models.JSONField(default=list, blank=True)
    heat_map = models.CharField(max_length=255, blank=True, default="")
    found_at = RecordTimeField(null=True)
    # The result of a comparison of the part with the acceptance table, which holds the foundry's limits for defects. The keys are the
    # fields of the class `Acceptance`. Empty if the line has no acceptance table.
    acceptance = models.JSONField(default=dict, blank=True)

    review_label = models.CharField(max_length=8, blank=True, default="")
    review_kinds = models.JSONField(default=list, blank=True)
    review_boxes = models.JSONField(default=list, blank=True)
    reviewer = models.CharField(max_length=150, blank=True, default="")
    reviewed_at = RecordTimeField(null=True)

    # Address of the picture in the object store. Empty if the picture is not kept.
    picture = models.CharField(max_length=255, blank=True, default="")
    picture_bytes = models.IntegerField(null=True)
    # True if the picture must still be copied to the object store, False when this is done. NULL if the picture is not kept.
    keep_picture = models.BooleanField(null=True)
    # The type of the part's defect. It comes from the review if the part has one, otherwise from the verdict or the finding.
    kind = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["line", "run", "part"], name="part_identity")]
        indexes: ClassVar = [
            models.Index(fields=["seen_at", "id", "line", *_FILTERED], name="part_seen"),
            models.Index(fields=["line", "seen_at", "id", *_FILTERED], name="part_line_seen"),
            models.Index(fields=["label", "seen_at", "id", "line", *_FILTERED], name="part_label_seen"),
            # This index serves queries with a line and a label. Without it SQLite reads all parts of the line.
            models.Index(fields=["line", "label", "seen_at", "id", *_FILTERED], name="part_line_label_seen"),
            models.Index(fields=["seen_at"], name="part_picture_wanted", condition=models.Q(keep_picture=True)),
            models.Index(fields=["seen_at", "picture_bytes"], name="part_picture_kept", condition=~models.Q(picture="")),
            models.Index(fields=["picture"], name="part_picture", condition=~models.Q(picture="")),
            models.Index(fields=["heat_map"], name="part_heat_map", condition=~models.Q(heat_map="")),
            # The database uses a partial index only if the query contains the condition of the index. The function `index_condition`
            # returns this condition.
            models.Index(
                fields=["kind", "seen_at", "id", "line", "label", *_FILTERED], name="part_kind_seen", condition=~models.Q(kind="")
            ),
            models.Index(
                fields=["reviewer", "seen_at", "id", "line", "label", *_FILTERED],
                name="part_reviewer_seen",
                condition=~models.Q(reviewer=""),
            ),
            models.Index(
                fields=["action", "seen_at", "id", "line", "label", "model", "defect_probability"],
                name="part_action_seen",
                condition=~models.Q(action__in=["", "passed"]),
            ),
        ]

    def __str__(self) -> str:
        return self.part_key

    @property
    def part_key(self) -> str:
        """The part id as text."""
        return f"{self.line}:{self.run}:{self.part}"


class RetentionState(models.Model):
    """The newest time at which the clock of the archivist's machine was known to be right. The table has at most one row, with the key 1.

    If the clock is wrong, new parts can look old. So the archivist compares the clock with this time before it deletes old parts.
    """

    clock_right_at = models.DateTimeField()
