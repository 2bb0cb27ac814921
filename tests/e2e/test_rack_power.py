"""The second line over a real Prometheus: a rack over its power budget is capped by its agents, and let go again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.line import DaemonProcess, Exporters, settings, written
from tests.realparts.prometheus import RunningPrometheus

pytestmark = pytest.mark.prometheus

BUDGET_W = 4700.0
SURGE_S = 9.0


def test_a_surge_is_capped_below_the_budget_and_the_limits_come_back_when_it_is_over(
    scraping_prometheus: RunningPrometheus,
    exporters: Exporters,
    racks: Iterator[tuple[str, tuple[str, ...]]],
    tmp_path: Path,
) -> None:
    rack, nodes = next(racks)
    wanted = settings(tmp_path, mode="act", prometheus_url=scraping_prometheus.url, kubeconfig=None, slack=None)
    wanted["detectors"].update({"clear_after": "2s", "settings": {"rack_power": {"window_s": 2.0}}})
    wanted["topology"] = {"rack_budget_watts": {rack: BUDGET_W}}
    wanted["power"] = {"agent_url": f"{exporters.url}/agents/{{node}}/power"}
    wanted["playbooks"]["params"] = {"cap-rack-power": {"lasting": "1s"}}
    with closing(DaemonProcess(written(tmp_path, wanted)).start()) as daemon:
        daemon.let_turns_pass(1)
        default = {node: exporters.limits_w(node) for node in nodes}
        assert exporters.rack_power_w(rack) < BUDGET_W
        exporters.strike("load_surge", rack=rack, duration_s=SURGE_S)
        daemon.eventually(lambda: exporters.rack_power_w(rack) > BUDGET_W, what=f"{rack} is over its budget")

        def capped() -> bool:
            return all(exporters.limits_w(node) < default[node] for node in nodes)

        daemon.eventually(capped, what=f"every GPU of {rack} has a lower limit")
        (limit,) = {limit for node in nodes for limit in exporters.limits_w(node)}
        assert limit >= wanted.get("power", {}).get("floor_watts", 300.0)
        within = f"{rack} is within its budget while it could draw more"
        daemon.eventually(lambda: exporters.rack_power_w(rack) <= BUDGET_W, what=within, timeout_s=0.8 * SURGE_S)

        def found() -> dict[str, object] | None:
            items = daemon.get("/api/v1/incidents")["items"]
            return next((item for item in items if item["state"] == "resolved"), None)

        incident = daemon.eventually(found, what="the incident is resolved", timeout_s=60.0)
        assert {node: exporters.limits_w(node) for node in nodes} == default
        assert exporters.rack_power_w(rack) <= BUDGET_W
        run = daemon.run(str(incident["run_id"]))
        assert (run["state"], run["approval_id"]) == ("succeeded", None)
        assert {effect["state"] for effect in run["effects"]} == {"undone"}
        assert [item["failure_mode"] for item in daemon.get("/api/v1/incidents")["items"]].count(
            "RackPowerOverBudget"
        ) == 1
