"""Slack: the channel that questions are put to."""
