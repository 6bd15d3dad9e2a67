"""Judges pictures: reads image records from Kafka, and sends one verdict for each picture."""
