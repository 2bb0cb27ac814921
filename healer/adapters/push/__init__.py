"""What comes by itself: Prometheus remote write, and Alertmanager's webhook."""
