"""Measurements of Castline on the machine at hand. Each compares two things in one run, because machines differ from hour to hour."""
