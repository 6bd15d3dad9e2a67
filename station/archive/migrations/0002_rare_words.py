"""Indexes over the few parts where a column says something."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("archive", "0001_initial"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="part",
            index=models.Index(condition=models.Q(("kind", ""), _negated=True), fields=["kind", "seen_at", "id"], name="part_kind_seen"),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(
                condition=models.Q(("reviewer", ""), _negated=True), fields=["reviewer", "seen_at", "id"], name="part_reviewer_seen"
            ),
        ),
        migrations.AddIndex(
            model_name="part",
            index=models.Index(
                condition=models.Q(("action__in", ["", "passed"]), _negated=True),
                fields=["action", "seen_at", "id"],
                name="part_action_seen",
            ),
        ),
    ]
