"""What a simulated fleet's exporters show, and what a Prometheus that scrapes them keeps of it."""
