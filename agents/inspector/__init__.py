"""Judges pictures: reads image records from Kafka, sends one verdict for each picture, and later makes heat maps of suspicious pictures."""
