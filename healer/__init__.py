"""healer: an autonomous operator for GPU fleets."""

from importlib.metadata import version

__version__ = version("healer")
