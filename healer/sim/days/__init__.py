"""Days of simulated fleets with everything that happens on them, and the truth about it."""
