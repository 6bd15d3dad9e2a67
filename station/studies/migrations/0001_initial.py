"""The tables of agreement studies."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Study",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=64, unique=True)),
                ("line", models.CharField(max_length=40)),
                ("rounds", models.PositiveSmallIntegerField()),
                ("seed", models.BigIntegerField()),
                ("made_by", models.CharField(max_length=150)),
                ("made_at", models.DateTimeField()),
                ("closed_at", models.DateTimeField(null=True)),
                ("people", models.ManyToManyField(related_name="+", to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "ordering": ["-made_at"],
            },
        ),
        migrations.CreateModel(
            name="StudyPart",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                ("part", models.CharField(max_length=80)),
                ("line", models.CharField(max_length=40)),
                ("picture", models.CharField(max_length=255)),
                ("sha256", models.CharField(max_length=64)),
                ("model", models.CharField(blank=True, default="", max_length=64)),
                ("model_label", models.CharField(blank=True, default="", max_length=8)),
                ("study", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="parts", to="studies.study")),
            ],
            options={
                "ordering": ["number"],
            },
        ),
        migrations.CreateModel(
            name="StudyAnswer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("round", models.PositiveSmallIntegerField()),
                ("label", models.CharField(max_length=8)),
                ("at", models.DateTimeField()),
                ("person", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL)),
                ("part", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="answers", to="studies.studypart")),
            ],
        ),
        migrations.AddConstraint(
            model_name="studypart",
            constraint=models.UniqueConstraint(fields=("study", "number"), name="study_part_number"),
        ),
        migrations.AddConstraint(
            model_name="studyanswer",
            constraint=models.UniqueConstraint(fields=("part", "person", "round"), name="study_answer_once"),
        ),
    ]
