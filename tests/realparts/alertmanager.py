"""A real Alertmanager for tests, or the one line that says how to get it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.realparts.programs import absent, installed
from tests.realparts.server import RunningServer


@dataclass(frozen=True, slots=True)
class Programs:
    alertmanager: Path
    setpriv: Path


def find_alertmanager() -> Programs | None:
    """Debian calls it prometheus-alertmanager, everybody else alertmanager."""
    alertmanager = installed("prometheus-alertmanager") or installed("alertmanager")
    setpriv = installed("setpriv")
    return None if alertmanager is None or setpriv is None else Programs(alertmanager, setpriv)


def require() -> Programs:
    """Its programs; without them the test is skipped, or fails if HEALER_TEST_REQUIRE names `alertmanager`."""
    return find_alertmanager() or absent("alertmanager")


class RunningAlertmanager(RunningServer):
    """Tells `url` of everything, at once, grouped by the alert's name, and proves itself with `token` from a file."""

    def __init__(self, programs: Programs, *, url: str, token: str, max_alerts: int = 0, repeat: str = "1h") -> None:
        super().__init__("Alertmanager", programs.setpriv)
        secret, config = self.folder / "token", self.folder / "alertmanager.yml"
        secret.write_text(token + "\n", encoding="utf-8")
        config.write_text(
            "route: {receiver: healer, group_by: [alertname], group_wait: 10ms, group_interval: 500ms, "
            f"repeat_interval: {repeat}}}\n"
            "receivers:\n"
            "- name: healer\n"
            "  webhook_configs:\n"
            f"  - url: {url}\n"
            "    send_resolved: true\n"
            f"    max_alerts: {max_alerts}\n"
            f"    http_config: {{authorization: {{credentials_file: {secret}}}}}\n",
            encoding="utf-8",
        )
        self.argv = [
            programs.alertmanager,
            f"--config.file={config}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def post(
        self, *all_labels: Mapping[str, str], summary: str = "", starts: datetime, ends: datetime | None = None
    ) -> None:
        """Raise these alerts, or end them: what Prometheus does."""
        alerts = [
            {
                "labels": labels,
                "annotations": {"summary": summary},
                "startsAt": starts.isoformat(),
                "generatorURL": "http://prometheus.example/graph?g0.expr=up",
                **({} if ends is None else {"endsAt": ends.isoformat()}),
            }
            for labels in all_labels
        ]
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts", json.dumps(alerts).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def failures(self) -> int:
        """How many deliveries have failed so far."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        name = 'alertmanager_notification_requests_failed_total{integration="webhook"'
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))
