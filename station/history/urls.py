"""URL patterns of the history and of the parts."""

from __future__ import annotations

from django.urls import path

from station.history import views

urlpatterns = [
    path("history/", views.history, name="history"),
    path("history/export.csv", views.download_csv, name="history-csv"),
    path("history/export.parquet", views.download_parquet, name="history-parquet"),
    path("parts/<str:line>/<int:run>/<int:part>/", views.part, name="part"),
    path("parts/<str:line>/<int:run>/<int:part>/picture", views.part_picture, name="part-picture"),
    path("parts/<str:line>/<int:run>/<int:part>/heat-map", views.part_heat_map, name="part-heat-map"),
    path("parts/<str:line>/<int:run>/<int:part>/nearest", views.show_nearest_pictures, name="part-nearest"),
    path("training-pictures/<str:version>/<int:number>", views.training_picture, name="training-picture"),
]
