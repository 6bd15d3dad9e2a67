"""Migrations of the tables of station.reviews, in order."""
