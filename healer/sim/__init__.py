"""The simulated fleet: GPUs with physics, their exporters and agents over HTTP, faults on demand, and a local Slack.

For demos, drills, tests and training data. What is simulated is the outside world, so nothing of healer but its errors
is imported here: the rest of healer meets this fleet as it would meet a real one, over HTTP.
"""
