"""The words of the product, as frozen values.

May live here: dataclasses, enums, and functions that only rearrange them. May not: I/O, a clock, randomness, any
library but numpy.
"""
