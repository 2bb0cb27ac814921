"""Slurm, through its own programs."""
