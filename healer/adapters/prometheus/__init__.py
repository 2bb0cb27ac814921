"""Prometheus, Thanos, Mimir, VictoriaMetrics: the fleet as of now by the query API, and history by any way on offer."""
