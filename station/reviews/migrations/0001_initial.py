"""Parts that people are asked about, their decisions, data sets."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("archive", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="DataSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(unique=True)),
                ("name", models.CharField(max_length=80, unique=True)),
                ("made_at", models.DateTimeField()),
                ("made_by", models.CharField(max_length=150)),
                ("selection", models.JSONField(default=dict)),
                ("counts", models.JSONField(default=dict)),
                ("left_out", models.JSONField(default=dict)),
                ("fingerprint", models.CharField(max_length=64)),
            ],
            options={
                "ordering": ["-number"],
            },
        ),
        migrations.CreateModel(
            name="Candidate",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("score", models.FloatField()),
                ("why", models.CharField(max_length=400)),
                ("audit", models.BooleanField(default=False)),
                ("state", models.CharField(default="open", max_length=8)),
                ("since", models.DateTimeField()),
                ("leased_by", models.CharField(blank=True, default="", max_length=150)),
                ("leased_until", models.DateTimeField(null=True)),
                ("part", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name="candidate", to="archive.part")),
            ],
            options={
                "indexes": [
                    models.Index(fields=["state", "score", "id"], name="candidate_next"),
                    models.Index(fields=["state", "since"], name="candidate_oldest"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Decision",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("label", models.CharField(max_length=8)),
                ("kinds", models.JSONField(default=list)),
                ("boxes", models.JSONField(default=list)),
                ("model_label", models.CharField(blank=True, default="", max_length=8)),
                ("audit", models.BooleanField(default=False)),
                ("at", models.DateTimeField()),
                ("undone_at", models.DateTimeField(null=True)),
                ("sent_offset", models.BigIntegerField(null=True)),
                ("part", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="decisions", to="archive.part")),
                ("reviewer", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["at"], name="decision_at"),
                    models.Index(fields=["reviewer", "at"], name="decision_reviewer_at"),
                ],
                "constraints": [
                    models.UniqueConstraint(condition=models.Q(("undone_at", None)), fields=("part", "reviewer"), name="decision_once")
                ],
            },
        ),
    ]
