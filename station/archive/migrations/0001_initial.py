"""The table of parts."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Part",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("line", models.CharField(max_length=40)),
                ("run", models.BigIntegerField()),
                ("part", models.BigIntegerField()),
                ("seen_at", models.DateTimeField()),
                ("verdict_id", models.UUIDField(null=True)),
                ("label", models.CharField(blank=True, default="", max_length=8)),
                ("defect_probability", models.FloatField(null=True)),
                ("votes", models.JSONField(blank=True, default=dict)),
                ("threshold", models.FloatField(null=True)),
                ("model", models.CharField(blank=True, default="", max_length=64)),
                ("reason", models.CharField(blank=True, default="", max_length=64)),
                ("overdue", models.BooleanField(default=False)),
                ("captured_at", models.DateTimeField(null=True)),
                ("received_at", models.DateTimeField(null=True)),
                ("decided_at", models.DateTimeField(null=True)),
                ("image_topic", models.CharField(blank=True, default="", max_length=249)),
                ("image_partition", models.IntegerField(null=True)),
                ("image_offset", models.BigIntegerField(null=True)),
                ("sha256", models.CharField(blank=True, default="", max_length=64)),
                ("width_px", models.IntegerField(null=True)),
                ("height_px", models.IntegerField(null=True)),
                ("action", models.CharField(blank=True, default="", max_length=16)),
                ("grade", models.CharField(blank=True, default="", max_length=64)),
                ("sorted_reason", models.CharField(blank=True, default="", max_length=32)),
                ("code", models.IntegerField(null=True)),
                ("gate_moved", models.BooleanField(null=True)),
                ("late", models.BooleanField(null=True)),
                ("counted_at", models.DateTimeField(null=True)),
                ("told_at", models.DateTimeField(null=True)),
                ("at_gate_at", models.DateTimeField(null=True)),
                ("sorted_at", models.DateTimeField(null=True)),
                ("finding_method", models.CharField(blank=True, default="", max_length=32)),
                ("finding_boxes", models.JSONField(blank=True, default=list)),
                ("heat_map", models.CharField(blank=True, default="", max_length=255)),
                ("found_at", models.DateTimeField(null=True)),
                ("review_label", models.CharField(blank=True, default="", max_length=8)),
                ("review_kinds", models.JSONField(blank=True, default=list)),
                ("review_boxes", models.JSONField(blank=True, default=list)),
                ("reviewer", models.CharField(blank=True, default="", max_length=150)),
                ("reviewed_at", models.DateTimeField(null=True)),
                ("picture", models.CharField(blank=True, default="", max_length=255)),
                ("picture_bytes", models.IntegerField(null=True)),
                ("keep_picture", models.BooleanField(null=True)),
                ("kind", models.CharField(blank=True, default="", max_length=64)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["seen_at", "id"], name="part_seen"),
                    models.Index(fields=["line", "seen_at", "id"], name="part_line_seen"),
                    models.Index(fields=["label", "seen_at", "id"], name="part_label_seen"),
                    models.Index(fields=["line", "label", "seen_at", "id"], name="part_line_label_seen"),
                    models.Index(condition=models.Q(("keep_picture", True)), fields=["seen_at"], name="part_picture_wanted"),
                    models.Index(
                        condition=models.Q(("picture", ""), _negated=True), fields=["seen_at", "picture_bytes"], name="part_picture_kept"
                    ),
                    models.Index(condition=models.Q(("picture", ""), _negated=True), fields=["picture"], name="part_picture"),
                    models.Index(condition=models.Q(("kind", ""), _negated=True), fields=["kind", "seen_at", "id"], name="part_kind_seen"),
                    models.Index(
                        condition=models.Q(("reviewer", ""), _negated=True), fields=["reviewer", "seen_at", "id"], name="part_reviewer_seen"
                    ),
                    models.Index(
                        condition=models.Q(("action__in", ["", "passed"]), _negated=True),
                        fields=["action", "seen_at", "id"],
                        name="part_action_seen",
                    ),
                ],
                "constraints": [models.UniqueConstraint(fields=("line", "run", "part"), name="part_identity")],
            },
        ),
    ]
