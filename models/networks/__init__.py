"""The networks of the ensemble, each in its own module, and a factory that builds the network that a manifest describes."""
