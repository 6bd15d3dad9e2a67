"""The dashboards, each a list of questions."""
