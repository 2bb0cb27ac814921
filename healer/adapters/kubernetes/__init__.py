"""Kubernetes: the cluster that is acted on, and what it knows of places and jobs."""
