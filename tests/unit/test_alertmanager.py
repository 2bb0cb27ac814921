"""An alert that another system raised: how it is read, what it is found to be, and for how long it counts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from healer.adapters.push.alertmanager import AlertmanagerWebhook, parse
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, FailureMode, Findings, Health
from healer.domain.frame import Frame, Presence
from healer.domain.incident import Incident, IncidentState
from healer.domain.topology import Place
from healer.errors import Rejected
from healer.policy.correlation import correlate
from healer.telemetry.identity import TopologyRules
from healer.telemetry.located import component_of
from healer.telemetry.notices import Fate, HeldNotices
from tests.unit.core_samples import CLEAR_AFTER, ECC, START, after, finding, frame, gpu, judged

RULES = TopologyRules()
RACK_MODE = FailureMode.RACK_POWER_OVER_BUDGET
HOUR = timedelta(hours=1)
UUID = {"UUID": "A", "Hostname": "n1", "gpu": "0"}
NODE = {"node": "n9"}  # of which no telemetry tells
GO_ZERO = "0001-01-01T00:00:00Z"


def alert(
    labels: Mapping[str, str] | None = None,
    *,
    name: str = "EccErrors",
    mode: str | None = str(ECC),
    resolved: bool = False,
    starts: datetime = START,
    ends: datetime | None = None,
    annotations: Mapping[str, str] | None = None,
    **more: object,
) -> dict[str, Any]:
    """One alert as Alertmanager sends it."""
    wanted = {} if mode is None else {"healer_failure_mode": mode}
    ended = ends or (starts + HOUR if resolved else None)
    all_labels = {"alertname": name, "severity": "critical", **wanted, **(UUID if labels is None else labels)}
    return {
        "status": "resolved" if resolved else "firing",
        "labels": all_labels,
        "annotations": {"summary": "3 uncorrectable errors"} if annotations is None else dict(annotations),
        "startsAt": starts.isoformat(),
        "endsAt": GO_ZERO if ended is None else ended.isoformat(),
        "generatorURL": "http://prometheus:9090/graph?g0.expr=ecc+%3E+0",
        "fingerprint": f"{zlib.crc32(json.dumps(all_labels, sort_keys=True).encode()):016x}",
        **more,
    }


def body(*alerts: object, **more: object) -> bytes:
    """One notification as Alertmanager sends it."""
    content = {
        "version": "4",
        "groupKey": '{}:{alertname="EccErrors"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "healer",
        "groupLabels": {"alertname": "EccErrors"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": alerts,
        **more,
    }
    return json.dumps(content).encode()


def webhook(*, most: int = 100, modes: Mapping[str, FailureMode] | None = None) -> AlertmanagerWebhook:
    return AlertmanagerWebhook(HeldNotices(RULES, modes=modes or {}, expires_after=5 * HOUR, most=most))


def seeing(
    *gpus: Component, presence: Sequence[Presence] = (), at: datetime = START, times: Sequence[float] = (0.0,)
) -> Frame:
    shown = np.array(presence or [Presence.CURRENT] * len(gpus), dtype=np.int8)
    return replace(frame(*gpus, at=at, times=times), presence=shown)


def told(*alerts: object, at: datetime = START, **more: object) -> AlertmanagerWebhook:
    hook = webhook()
    hook.receive(body(*alerts, **more), at)
    return hook


def healths(findings: Findings) -> dict[str, Health]:
    return {report.key: report.health for report in findings.reports}


# Reading the body


def test_a_notification_is_read() -> None:
    firing, resolved = alert(), alert(resolved=True, fingerprint="f2", starts=START)
    delivery = parse(body(firing, resolved, truncatedAlerts=3))
    assert (delivery.group, delivery.left_out) == ('{}:{alertname="EccErrors"}', 3)
    one, other = delivery.notices
    assert (one.firing, one.starts_at, one.ends_at) == (True, START, None)
    assert (other.firing, other.ends_at, other.fingerprint) == (False, START + HOUR, "f2")
    assert one.labels["UUID"] == "A"
    assert one.annotations["summary"] == "3 uncorrectable errors"
    assert one.link.startswith("http://prometheus:9090/graph")


def test_what_grafana_adds_is_tolerated() -> None:
    extras: dict[str, Any] = {
        "silenceURL": "http://g/silence",
        "values": {"B": 44.2, "C": None},
        "valueString": "[]",
        "orgId": 1,
    }
    content = body(alert(**extras), version="1", orgId=1, title="[FIRING:1]", state="alerting", message="**Firing**")
    assert len(parse(content).notices) == 1


def test_times_are_read_to_the_nanosecond_and_from_any_zone() -> None:
    (notice,) = parse(body(alert(startsAt="2018-08-03T09:52:26.739266876+02:00"))).notices
    assert notice.starts_at == datetime(2018, 8, 3, 7, 52, 26, 739267, tzinfo=UTC)


def test_alerts_without_a_fingerprint_are_told_apart_by_their_labels() -> None:
    one, same, other = (
        parse(body(alert({"UUID": uuid}, fingerprint=""))).notices[0].fingerprint for uuid in ("A", "A", "B")
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "Expected `object`"),
        (b"{}", "`version`"),
        (b'{"version": "4"}', "`alerts`"),
        (b'{"version": 4, "alerts": []}', r"\$\.version"),
        (b'{"version": "3", "alerts": []}', r"\$\.version"),
        (b'{"version": "4", "alerts": null}', r"\$\.alerts"),
        (b'{"version": "4", "alerts": [7]}', r"\$\.alerts\[0\]"),
        (b'{"version": "4", "alerts": [{"status": "alerting", "labels": {}}]}', r"\$\.alerts\[0\]\.status"),
        (b'{"version": "4", "alerts": [{"status": "firing"}]}', "`labels`"),
        (b'{"version": "4", "alerts": [{"status": "firing", "labels": {"a": 1}}]}', r"\$\.alerts\[0\]\.labels"),
        (body(alert(startsAt="yesterday")), r"\$\.alerts\[0\]\.startsAt"),
        (body(alert(startsAt="2026-03-14T03:00:00")), "timezone"),
        (body(alert(endsAt="9999-12-31T23:59:59-14:00")), "calendar"),
        (body(truncatedAlerts=-1), r"\$\.truncatedAlerts"),
        (b'{"version": "4", "alerts": [], "x": ' + b"[" * 100_000, "nested too deep"),
        (body(*[{"status": "firing", "labels": {}}] * 20_001), "length <= 20000"),
        (b'{"version": "4", "alerts": [{"status": "firing", "labels": {"a": "\\ud800"}}]}', "not JSON"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_with_what_is_wrong(content: bytes, says: str) -> None:
    with pytest.raises(Rejected, match=says) as refused:
        parse(content)
    assert len(str(refused.value)) < 400


# What an alert is about


@pytest.mark.parametrize(
    ("mode", "labels", "about"),
    [
        (ECC, UUID, Component(ComponentKind.GPU, node="n1", gpu="0", uuid="A")),
        (ECC, {"node": "n1", "gpu": "3"}, Component(ComponentKind.GPU, node="n1", gpu="3")),
        (ECC, {"UUID": "A", "GPU_I_ID": "2", "gpu": "0"}, Component(ComponentKind.GPU, gpu="0:2", uuid="A")),
        (ECC, {"node": "n1", "rack": "r1"}, Component(ComponentKind.NODE, rack="r1", node="n1")),
        (ECC, {"exported_node": "n1", "node": "n2"}, Component(ComponentKind.NODE, node="n1")),
        (ECC, {"hpc_job": "17"}, Component(ComponentKind.JOB, job="17")),
        (RACK_MODE, {**UUID, "rack": "r1"}, Component(ComponentKind.RACK, rack="r1")),
        (RACK_MODE, {"node": "n1"}, Component(ComponentKind.NODE, node="n1")),
        (ECC, {"instance": "10.0.0.7:9400", "job": "node"}, None),
        (ECC, {"node": "n" * 257}, None),
        (ECC, {"node": "n1\x1b[2J"}, None),
    ],
    ids=[
        "GPU",
        "GPU by its index",
        "MIG instance",
        "node",
        "clashing labels",
        "job",
        "what the mode is about",
        "else the finest",
        "nothing",
        "a name of any length",
        "control characters",
    ],
)
def test_the_component_is_what_the_labels_name(
    mode: FailureMode, labels: Mapping[str, str], about: Component | None
) -> None:
    assert component_of(labels, mode, RULES) == about


@pytest.mark.parametrize("mode", FailureMode)
def test_every_failure_mode_can_be_alerted(mode: FailureMode) -> None:
    (found,) = told(alert(mode=str(mode))).findings(seeing(), START).found
    assert found.failure_mode is mode


def test_a_failure_mode_may_also_come_from_the_configuration() -> None:
    hook = webhook(modes={"NodeRackHot": RACK_MODE})
    hook.receive(body(alert({"rack": "r1"}, name="NodeRackHot", mode=None)), START)
    (found,) = hook.findings(seeing(), START).found
    assert (found.failure_mode, found.component) == (RACK_MODE, Component(ComponentKind.RACK, rack="r1"))


# What fires


def test_an_alert_that_fires_is_a_finding_that_says_who_found_what() -> None:
    (found,) = told(alert()).findings(seeing(gpu("A")), START).found
    assert (found.failure_mode, found.component, found.basis, found.score) == (ECC, gpu("A"), Basis.RULE, 1.0)
    assert found.reason == "EccErrors: 3 uncorrectable errors"
    (evidence,) = found.evidence
    assert (evidence.signal, evidence.value, evidence.at) == ('ALERTS{alertname="EccErrors"}', 1.0, START)
    assert evidence.note.startswith("http://prometheus:9090/graph")


@pytest.mark.parametrize(
    ("severity", "health"),
    [("critical", Health.FAILED), ("page", Health.FAILED), ("warning", Health.DEGRADED), ("", Health.DEGRADED)],
)
def test_how_bad_it_is_follows_from_the_severity(severity: str, health: Health) -> None:
    findings = told(alert({**UUID, "severity": severity})).findings(seeing(gpu("A")), START)
    assert findings.found[0].health is health
    assert healths(findings) == {f"{ECC}@gpu/A": health}


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({"summary": "short", "description": "long"}, "EccErrors: short"),
        ({"description": "long\n  and\x00 wide"}, "EccErrors: long and wide"),
        ({}, "EccErrors fires"),
        ({"summary": "x" * 5000}, "EccErrors: " + "x" * 299 + "…"),
    ],
    ids=["summary", "description", "neither", "endless"],
)
def test_the_reason_is_one_line_from_the_annotations(annotations: Mapping[str, str], reason: str) -> None:
    (found,) = told(alert(annotations=annotations)).findings(seeing(gpu("A")), START).found
    assert found.reason == reason


def test_a_gpu_that_is_named_by_its_index_is_the_one_that_detectors_know_by_its_uuid() -> None:
    (found,) = told(alert({"node": "n1", "gpu": "0"})).findings(seeing(gpu("B", "n2"), gpu("A", "n1")), START).found
    assert found.component == gpu("A", "n1")


def test_a_node_is_in_the_rack_where_the_topology_has_it() -> None:
    where = replace(seeing(), places={"n9": Place(rack="r7")})
    (found,) = told(alert(NODE)).findings(where, START).found
    assert found.component == Component(ComponentKind.NODE, rack="r7", node="n9")


def test_several_alerts_of_one_fault_are_one_finding_as_bad_as_the_worst() -> None:
    mild = alert({**UUID, "severity": "warning", "link": "1"}, name="A")
    bad = alert({**UUID, "link": "2"}, name="B")
    (found,) = told(mild, bad).findings(seeing(gpu("A")), START).found
    assert (found.health, found.reason) == (Health.FAILED, "B: 3 uncorrectable errors (and 1 more alerts)")
    assert [evidence.signal for evidence in found.evidence] == ['ALERTS{alertname="B"}', 'ALERTS{alertname="A"}']


def test_being_told_the_same_again_changes_no_finding() -> None:
    hook, where = webhook(), seeing(gpu("A"))
    notification = body(alert(), alert({"UUID": "B"}))
    hook.receive(notification, START)
    before = hook.findings(where, START)
    hook.receive(notification, after(60))
    assert set(hook.findings(where, after(60)).found) == set(before.found)


# What is over


def test_what_is_resolved_is_reported_healthy_and_only_that() -> None:
    hook = told(alert(), alert({"UUID": "B"}))
    hook.receive(body(alert(resolved=True)), after(60))
    findings = hook.findings(seeing(gpu("A"), gpu("B"), gpu("C")), after(60))
    assert healths(findings) == {f"{ECC}@gpu/A": Health.HEALTHY, f"{ECC}@gpu/B": Health.FAILED}
    assert findings.judgements == ()


def test_what_is_resolved_counts_without_having_been_told_that_it_fires() -> None:
    assert healths(told(alert(resolved=True)).findings(seeing(gpu("A")), START)) == {f"{ECC}@gpu/A": Health.HEALTHY}


@pytest.mark.parametrize("presence", [p for p in Presence if p is not Presence.CURRENT])
def test_a_rule_is_resolved_also_when_its_data_is_gone_which_is_not_health(presence: Presence) -> None:
    where = seeing(gpu("A", "n1"), gpu("B", "n2"), presence=(presence, Presence.CURRENT))
    for labels in (UUID, {"node": "n1"}, {"UUID": "lost", "node": "n1"}):
        assert healths(told(alert(labels, resolved=True)).findings(where, START)) == {}


@pytest.mark.parametrize(
    "labels",
    [{"node": "n1"}, {"rack": "r1"}, {"hpc_job": "j1"}, NODE, {"UUID": "X", "node": "n9"}, {"UUID": "M", "node": "n1"}],
    ids=["node", "rack", "job", "a node without telemetry", "a GPU without telemetry", "a GPU in instances"],
)
def test_what_is_seen_in_part_or_was_never_covered_is_healthy_when_it_is_resolved(labels: Mapping[str, str]) -> None:
    instance = Component(ComponentKind.GPU, rack="r1", node="n1", gpu="1:3", uuid="M")
    where = seeing(
        gpu("A", "n1"), gpu("B", "n1"), instance, presence=(Presence.MISSING, Presence.CURRENT, Presence.CURRENT)
    )
    assert list(healths(told(alert(labels, resolved=True)).findings(where, START)).values()) == [Health.HEALTHY]


def test_what_another_alert_still_says_is_not_over() -> None:
    hook = told(alert({**UUID, "link": "1"}), alert({**UUID, "link": "2"}))
    hook.receive(body(alert({**UUID, "link": "1"}, resolved=True)), after(60))
    assert healths(hook.findings(seeing(gpu("A")), after(60))) == {f"{ECC}@gpu/A": Health.FAILED}


def test_the_end_of_an_earlier_time_that_comes_late_does_not_end_the_present_one() -> None:
    hook = told(alert(starts=after(600)), at=after(600))
    fates = hook.receive(body(alert(resolved=True, starts=START, ends=after(300))), after(610))
    assert fates == {"outdated": 1}
    assert len(hook.findings(seeing(gpu("A")), after(610)).found) == 1


def test_an_end_from_a_replica_that_began_earlier_is_the_end() -> None:
    hook = told(alert(starts=after(15)), at=after(20))
    hook.receive(body(alert(resolved=True, starts=START, ends=after(900))), after(901))
    assert hook.findings(seeing(gpu("A")), after(901)).found == ()


# What is no longer heard


def test_an_alert_that_is_neither_repeated_nor_resolved_becomes_unknown_and_is_then_forgotten() -> None:
    hook, where = told(alert()), seeing(gpu("A"))
    assert len(hook.findings(where, START + 5 * HOUR - timedelta(seconds=1)).found) == 1
    lapsed = hook.findings(where, START + 5 * HOUR)
    assert (lapsed.found, healths(lapsed)) == ((), {f"{ECC}@gpu/A": Health.UNKNOWN})
    (warning,) = hook.warnings(START + 5 * HOUR)
    assert "neither repeated nor resolved, such as EccErrors of GPU 0 of n1" in warning
    assert healths(hook.findings(where, START + 10 * HOUR)) == {}
    assert hook.warnings(START + 10 * HOUR) == ()


def test_an_alert_that_is_repeated_counts_on() -> None:
    hook = told(alert())
    hook.receive(body(alert()), START + 4 * HOUR)
    assert len(hook.findings(seeing(gpu("A")), START + 8 * HOUR).found) == 1


def test_a_sender_that_says_until_when_it_counts_is_taken_at_its_word() -> None:
    hook = told(alert(ends=after(240)))
    assert len(hook.findings(seeing(gpu("A")), after(239)).found) == 1
    assert healths(hook.findings(seeing(gpu("A")), after(240))) == {f"{ECC}@gpu/A": Health.UNKNOWN}


def test_health_that_was_reported_long_ago_is_no_longer_known() -> None:
    hook = told(alert(resolved=True))
    assert healths(hook.findings(seeing(gpu("A")), START + 5 * HOUR)) == {}


def test_one_alert_that_ended_does_not_speak_for_another_that_fell_silent() -> None:
    hook = told(alert({**UUID, "link": "1"}), alert({**UUID, "link": "2"}))
    hook.receive(body(alert({**UUID, "link": "1"}, resolved=True)), START + 4 * HOUR)
    assert healths(hook.findings(seeing(gpu("A")), START + 6 * HOUR)) == {f"{ECC}@gpu/A": Health.UNKNOWN}


# What cannot be used


def test_an_alert_without_a_failure_mode_is_counted_and_said_once() -> None:
    hook, two = webhook(), body(alert(mode=None), alert({"UUID": "B"}, mode=None))
    with capture_logs() as logged:
        assert hook.receive(two, START) == hook.receive(two, START + 12 * HOUR) == {"unmapped": 2}
    assert hook.told() == {"unmapped": 4}
    assert hook.warnings(START) == ()
    (line,) = logged
    assert line["detail"].startswith("EccErrors has no failure mode")


def test_a_failure_mode_that_does_not_exist_is_a_warning_with_the_nearest_that_does() -> None:
    hook = told(alert(mode="GpuUncorectableEcc"))
    (warning,) = hook.warnings(START)
    assert "did you mean 'GpuUncorrectableEcc'?" in warning
    (far,) = told(alert(mode="x" * 100_000)).warnings(START)
    assert "known: GpuUncorrectableEcc, " in far
    assert hook.findings(seeing(gpu("A")), START).found == ()


def test_a_warning_ends_when_its_alert_is_put_right() -> None:
    hook = told(alert(mode="GpuUncorectableEcc"))
    hook.receive(body(alert()), after(60))
    assert hook.warnings(after(60)) == ()


def test_an_alert_that_names_no_component_is_a_warning() -> None:
    hook = told(alert({"instance": "10.0.0.7:9400"}))
    assert hook.told() == {"nameless": 1}
    (warning,) = hook.warnings(START)
    assert "EccErrors is for GpuUncorrectableEcc, but its labels name no GPU" in warning


@pytest.mark.parametrize("name", ["DatasourceNoData", "DatasourceError"])
def test_a_rule_that_grafana_cannot_evaluate_is_no_fault_of_the_component_that_it_is_about(name: str) -> None:
    hook = told(alert({**UUID, "rulename": "Ecc"}, name=name))
    assert hook.findings(seeing(gpu("A")), START).found == ()
    assert hook.warnings(START) == (f"{name} Ecc: the rule cannot be evaluated",)
    hook.receive(body(alert({**UUID, "rulename": "Ecc"}, name=name, resolved=True)), after(60))
    assert hook.warnings(after(60)) == ()


def test_alerts_that_were_cut_off_are_a_warning_until_the_group_is_whole_again() -> None:
    hook = told(alert(), truncatedAlerts=12)
    (warning,) = hook.warnings(START)
    assert warning.startswith('12 alerts of {}:{alertname="EccErrors"} were cut off')
    hook.receive(body(alert()), after(60))
    assert hook.warnings(after(60)) == ()


# Bounds


def test_what_is_over_makes_room_for_what_fires_and_what_fires_is_never_given_up() -> None:
    hook, where = webhook(most=40), seeing()
    hook.receive(body(*(alert({"UUID": f"old{n}"}, resolved=True) for n in range(20))), START)
    hook.receive(body(*(alert({"UUID": f"new{n}"}) for n in range(40))), after(60))
    assert len(hook.findings(where, after(60)).found) == 40
    assert hook.receive(body(alert({"UUID": "one more"})), after(90)) == {"no_room": 1}
    assert hook.receive(body(alert({"UUID": "new0"}, resolved=True)), after(90)) == {"held": 1}
    assert len(hook.findings(where, after(90)).found) == 39
    assert any("alerts were left out: 40 that fire" in warning for warning in hook.warnings(after(90)))


def test_any_number_of_alert_names_is_remembered_only_to_a_bound() -> None:
    hook = webhook()
    for batch in range(30):
        hook.receive(body(*(alert(name=f"N{batch}-{n}", mode="no") for n in range(100))), START)
    assert len(hook.warnings(START)) <= 20


# After a restart


def test_an_incident_from_before_a_restart_also_ends_when_nothing_more_is_heard() -> None:
    (found,) = told(alert()).findings(seeing(gpu("A")), START).found
    hook = webhook()
    hook.recall([Incident.opened(found, START)], after(600))
    assert healths(hook.findings(seeing(gpu("A")), after(600))) == {f"{ECC}@gpu/A": Health.FAILED}
    assert healths(hook.findings(seeing(gpu("A")), after(600) + 5 * HOUR)) == {f"{ECC}@gpu/A": Health.UNKNOWN}


def test_what_was_seen_healthy_before_a_restart_is_not_sick_because_of_an_old_alert() -> None:
    (found,) = told(alert()).findings(seeing(gpu("A")), START).found
    hook = webhook()
    hook.recall([replace(Incident.opened(found, START), healthy_since=after(500))], after(600))
    assert healths(hook.findings(seeing(gpu("A")), after(600))) == {}


def test_a_detector_that_sees_nothing_does_not_end_an_alert_s_incident_because_of_a_restart() -> None:
    where = seeing(gpu("A"))
    (found,) = told(alert()).findings(where, START).found
    live = [Incident.opened(found, START)]
    hook, unmoved = webhook(), Findings((), (judged(Health.HEALTHY),))
    hook.recall(live, after(30))

    def look(seconds: float) -> IncidentState:
        seen = seeing(gpu("A"), at=after(seconds), times=(-30.0, 0.0))
        live[:] = correlate(live, unmoved + hook.findings(seen, seen.at), seen, clear_after=CLEAR_AFTER) or live
        return live[0].state

    assert {look(seconds) for seconds in range(30, 900, 30)} == {IncidentState.OPEN}
    hook.receive(body(alert(resolved=True)), after(900))
    assert {look(seconds) for seconds in range(900, 1800, 30)} == {IncidentState.OPEN, IncidentState.RESOLVED}


def test_an_incident_that_a_detector_found_does_not_end_because_no_alert_is_heard() -> None:
    hook = webhook()
    hook.recall([Incident.opened(finding(gpu("A")), START)], START)
    assert healths(hook.findings(seeing(gpu("A")), START + 6 * HOUR)) == {}


def test_once_it_is_heard_again_the_restart_no_longer_matters() -> None:
    (found,) = told(alert()).findings(seeing(gpu("A")), START).found
    hook = webhook()
    hook.recall([Incident.opened(found, START)], after(600))
    hook.receive(body(alert(resolved=True)), after(700))
    for at in (after(700), START + 5 * HOUR, START + 6 * HOUR):
        assert Health.UNKNOWN not in healths(hook.findings(seeing(gpu("A")), at)).values()


# To the end


def test_an_alert_on_a_node_opens_an_incident_which_ends_some_time_after_it_is_resolved() -> None:
    hook = told(alert(NODE))
    live, incident = dict[str, Incident](), None
    for seconds in range(0, 900, 30):
        if seconds == 300:
            hook.receive(body(alert(NODE, resolved=True)), after(seconds))
        where = seeing(at=after(seconds), times=(-30.0, 0.0))
        changed = correlate(live.values(), hook.findings(where, where.at), where, clear_after=CLEAR_AFTER)
        live |= {each.id: each for each in changed}
        (incident,) = live.values()
        over = seconds >= 300 + CLEAR_AFTER.total_seconds()
        assert incident.state is (IncidentState.RESOLVED if over else IncidentState.OPEN), seconds
    assert incident is not None
    assert incident.component == Component(ComponentKind.NODE, node="n9")


# Whatever is sent


_text = st.text(max_size=40) | st.sampled_from(["firing", "resolved", "EccErrors", str(ECC), "n1", GO_ZERO, "4"])
_json: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=20,
)
_labels = st.dictionaries(
    st.sampled_from(["alertname", "healer_failure_mode", "UUID", "gpu", "node", "rack", "hpc_job", "severity"]) | _text,
    _text,
    max_size=8,
)
_alert = st.fixed_dictionaries(
    {"status": st.sampled_from(["firing", "resolved"]), "labels": _labels},
    optional={
        "annotations": st.dictionaries(st.sampled_from(["summary", "description"]) | _text, _text, max_size=3),
        "startsAt": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | _json,
        "endsAt": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | _json,
        "generatorURL": _text,
        "fingerprint": _text,
        "more": _json,
    },
)
_nearly = st.fixed_dictionaries(
    {"version": st.sampled_from(["4", "1"]), "alerts": st.lists(_alert, max_size=5)},
    optional={"groupKey": _text, "truncatedAlerts": st.integers(-1, 5), "more": _json},
)


@settings(max_examples=400, deadline=None)
@given(
    content=st.binary(max_size=200) | _json.map(json.dumps).map(str.encode) | _nearly.map(json.dumps).map(str.encode)
)
def test_whatever_is_sent_is_refused_or_taken_and_can_be_written_down(content: bytes) -> None:
    hook = webhook(most=3)
    try:
        fates = hook.receive(content, START)
    except Rejected:
        return
    assert set(fates) <= {str(fate) for fate in Fate}
    where = seeing(gpu("A"))
    for at in (START, START + 5 * HOUR, START + 20 * HOUR):
        findings = hook.findings(where, at)
        written = msgspec.json.encode([findings.found, findings.reports, hook.warnings(at)])
        assert b"\\u0000" not in written
        for found in findings.found:
            assert found.reason.isprintable()
            assert len(found.reason) < 700
