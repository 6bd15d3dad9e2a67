"""The networks of the ensemble, one module each, and the function that builds the network a manifest names."""
