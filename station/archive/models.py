"""The table of parts: all that Castline's topics tell of one casting, in one row."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

_ASKED = ("model", "defect_probability", "action")


class Part(models.Model):
    """One part. Its records come in any order, so all but its identity and `seen_at` may be empty.

    The first verdict by `decided_at` stands: it is what the gate acted on.
    """

    line = models.CharField(max_length=40)
    run = models.BigIntegerField()
    part = models.BigIntegerField()
    # Order of history: when the picture was taken, else when the part was counted, else the oldest time known of it.
    seen_at = models.DateTimeField()

    verdict_id = models.UUIDField(null=True)
    label = models.CharField(max_length=8, blank=True, default="")
    defect_probability = models.FloatField(null=True)
    votes = models.JSONField(default=dict, blank=True)
    threshold = models.FloatField(null=True)
    model = models.CharField(max_length=64, blank=True, default="")
    reason = models.CharField(max_length=64, blank=True, default="")
    overdue = models.BooleanField(default=False)
    captured_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(null=True)
    decided_at = models.DateTimeField(null=True)
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
    late = models.BooleanField(null=True)
    counted_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)
    at_gate_at = models.DateTimeField(null=True)
    sorted_at = models.DateTimeField(null=True)

    finding_method = models.CharField(max_length=32, blank=True, default="")
    finding_boxes = models.JSONField(default=list, blank=True)
    heat_map = models.CharField(max_length=255, blank=True, default="")
    found_at = models.DateTimeField(null=True)

    review_label = models.CharField(max_length=8, blank=True, default="")
    review_kinds = models.JSONField(default=list, blank=True)
    review_boxes = models.JSONField(default=list, blank=True)
    reviewer = models.CharField(max_length=150, blank=True, default="")
    reviewed_at = models.DateTimeField(null=True)

    # Address in the object store; empty where the picture is not kept.
    picture = models.CharField(max_length=255, blank=True, default="")
    picture_bytes = models.IntegerField(null=True)
    # Null: nobody asked for it to be kept. True: it is to be fetched. False: it was, and is kept, or could not be had, or was dropped.
    keep_picture = models.BooleanField(null=True)
    # First type of defect that a person named, else that was found; for filters.
    kind = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["line", "run", "part"], name="part_identity")]
        indexes: ClassVar = [
            # Each begins with what is looked up and the order, and ends with what else may be asked: a row is read only to be shown.
            models.Index(fields=["seen_at", "id", "line", *_ASKED], name="part_seen"),
            models.Index(fields=["line", "seen_at", "id", *_ASKED], name="part_line_seen"),
            models.Index(fields=["label", "seen_at", "id", "line", *_ASKED], name="part_label_seen"),
            # The two together by either alone: SQLite read all of a line for the few of a label, which grew with the table.
            models.Index(fields=["line", "label", "seen_at", "id", *_ASKED], name="part_line_label_seen"),
            # Small, since they hold only the parts that they are about.
            models.Index(fields=["seen_at"], name="part_picture_wanted", condition=models.Q(keep_picture=True)),
            models.Index(fields=["seen_at", "picture_bytes"], name="part_picture_kept", condition=~models.Q(picture="")),
            models.Index(fields=["picture"], name="part_picture", condition=~models.Q(picture="")),
            # Over the few rows that say something there; queries repeat these conditions, see station.history.indexes.
            models.Index(fields=["kind", "seen_at", "id", "line", "label", *_ASKED], name="part_kind_seen", condition=~models.Q(kind="")),
            models.Index(
                fields=["reviewer", "seen_at", "id", "line", "label", *_ASKED],
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
        return f"{self.line}:{self.run}:{self.part}"
