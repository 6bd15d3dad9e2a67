"""Reads the pictures of parts from the object store or from Kafka, and serves them at addresses that the station has signed."""
