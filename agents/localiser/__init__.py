"""Makes heat maps: reads verdicts from Kafka, computes which areas of a suspicious part look defective, and sends findings."""
