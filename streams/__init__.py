"""What all processes share: settings, topics, records, delivery to Kafka, object store, metrics and health.

This package imports no other package of Castline.
"""
