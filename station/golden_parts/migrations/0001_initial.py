"""The tables of golden parts."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="GoldenPart",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("line", models.CharField(max_length=40)),
                ("name", models.CharField(max_length=64)),
                ("label", models.CharField(max_length=8)),
                ("sha256", models.CharField(blank=True, default="", max_length=64)),
                ("made_by", models.CharField(max_length=150)),
                ("made_at", models.DateTimeField()),
                ("retired_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["line", "name"],
                "constraints": [
                    models.UniqueConstraint(condition=models.Q(("retired_at", None)), fields=("line", "name"), name="golden_part_name")
                ],
            },
        ),
        migrations.CreateModel(
            name="GoldenCheck",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("line", models.CharField(max_length=40)),
                ("run", models.BigIntegerField()),
                ("part", models.BigIntegerField()),
                ("label", models.CharField(blank=True, default="", max_length=8)),
                ("model", models.CharField(blank=True, default="", max_length=64)),
                ("shown_by", models.CharField(blank=True, default="", max_length=150)),
                ("at", models.DateTimeField()),
                (
                    "golden",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="checks", to="golden_parts.goldenpart"),
                ),
            ],
            options={
                "ordering": ["-at", "-id"],
                "indexes": [models.Index(condition=models.Q(("label", "")), fields=["line", "run", "part"], name="golden_check_part")],
                "constraints": [models.UniqueConstraint(fields=("golden", "run", "part"), name="golden_check_once")],
            },
        ),
    ]
