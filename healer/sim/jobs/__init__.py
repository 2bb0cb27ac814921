"""The jobs of a simulated fleet: what kinds there are, when they run where, and what they ask of GPUs meanwhile."""
