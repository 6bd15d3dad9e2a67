"""URL patterns of the Models pages."""

from __future__ import annotations

from django.urls import path

from station.versions import views

urlpatterns = [
    path("models/", views.show_versions, name="versions"),
    path("models/lines", views.show_lines, name="version-lines"),
    path("models/change", views.change_model, name="version-change"),
    path("models/version/<str:version>/", views.show_version, name="version"),
    path("models/version/<str:version>/card", views.show_card, name="version-card"),
    path("models/version/<str:version>/report/<str:file>", views.send_report_picture, name="version-report-picture"),
    path("models/version/<str:version>/training/<str:file>", views.send_training_curve, name="version-training-curve"),
]
