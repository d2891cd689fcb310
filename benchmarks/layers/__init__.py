"""How long each layer of the network takes, from the backend's own profiler."""
