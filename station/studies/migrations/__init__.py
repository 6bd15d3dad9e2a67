"""Migrations of the tables of station.studies, in order."""
