"""Makes heat maps: reads verdicts from Kafka, computes where each suspicious part can be defective, and sends findings."""
