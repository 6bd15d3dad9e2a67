"""Indexes of the history that end with what else may be asked."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("archive", "0001_initial"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="part",
            name="part_seen",
        ),
        migrations.RemoveIndex(
            model_name="part",
            name="part_line_seen",
        ),
        migrations.RemoveIndex(
            model_name="part",
            name="part_label_seen",
        ),
        migrations.RemoveIndex(
            model_name="part",
            name="part_line_label_seen",
        ),
        migrations.RemoveIndex(
            model_name="part",
            name="part_kind_seen",
        ),
        migrations.RemoveIndex(
            model_name="part",
            name="part_reviewer_seen",
        ),
        migrations.RemoveIndex(
            model_name="part",
            name="part_action_seen",
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(fields=["seen_at", "id", "line", "model", "defect_probability", "action"], name="part_seen"),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(fields=["line", "seen_at", "id", "model", "defect_probability", "action"], name="part_line_seen"),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(fields=["label", "seen_at", "id", "line", "model", "defect_probability", "action"], name="part_label_seen"),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(
                fields=["line", "label", "seen_at", "id", "model", "defect_probability", "action"], name="part_line_label_seen"
            ),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(
                condition=models.Q(("kind", ""), _negated=True),
                fields=["kind", "seen_at", "id", "line", "label", "model", "defect_probability", "action"],
                name="part_kind_seen",
            ),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(
                condition=models.Q(("reviewer", ""), _negated=True),
                fields=["reviewer", "seen_at", "id", "line", "label", "model", "defect_probability", "action"],
                name="part_reviewer_seen",
            ),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(
                condition=models.Q(("action__in", ["", "passed"]), _negated=True),
                fields=["action", "seen_at", "id", "line", "label", "model", "defect_probability"],
                name="part_action_seen",
            ),
        ),
    ]
