"""Keeps what the topics tell of every part: verdicts, sortings, findings and reviews -> database and pictures."""
