"""What is known: networks, training, evaluation, registry, runtimes. Arrays in, probabilities out; knows no Kafka."""
