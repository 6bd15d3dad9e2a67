"""The code that all processes share: settings, topics, records, delivery to Kafka, object store, metrics and health pages.

This package imports no other package of Castline.
"""
