"""Tests of the station: its pages, its tables, its browsers."""
