"""Topology from a file and from kube-state-metrics, and several sources in layers."""
