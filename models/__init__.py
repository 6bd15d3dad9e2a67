"""The machine-learning part of Castline: networks, training, evaluation, runtimes and the model registry. It does not use Kafka."""
