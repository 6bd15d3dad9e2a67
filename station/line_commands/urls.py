"""URL patterns of the commands to a line."""

from __future__ import annotations

from django.urls import path

from station.line_commands import views

urlpatterns = [
    path("lines/<str:line>/commands/", views.send_command, name="line-commands"),
    path("lines/<str:line>/commands/<uuid:command_id>", views.show_answer, name="line-command"),
]
