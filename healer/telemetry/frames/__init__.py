"""From readings to frames: whose each series is, and the history of each GPU in rows that do not move."""
