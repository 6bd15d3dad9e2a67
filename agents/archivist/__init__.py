"""Writes verdicts, sortings, findings and reviews from Kafka to the database of the station."""
