"""Everything over HTTP: the JSON API, the console, Slack's clicks, health and metrics, and who may do what.

May live here: reading requests, showing what the journal and the newest snapshot hold. May not: decisions about plans.
"""
