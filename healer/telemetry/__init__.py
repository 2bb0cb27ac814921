"""The ingest core: from what exporters write to the Frame.

May live here: pure transformations of readings, and the window of history they fill. May not: I/O, a clock.
"""
