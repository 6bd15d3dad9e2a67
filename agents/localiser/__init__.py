"""Makes heat maps: reads verdicts from Kafka, computes where each suspicious part may be defective, and sends findings."""
