"""Loads what a deployment brings: playbooks, detectors, models. Everything wrong with them is found here, at start.

Content is loaded from the paths in config.yaml; the engine never imports it.
"""
