"""The runtimes that compute a version's networks: TensorFlow, OpenVINO and LiteRT behind one interface."""
