"""The first version of a playbook: short, safe, and with tests that pass, to be changed from there."""

from __future__ import annotations

from healer.domain.finding import FailureMode
from healer.errors import HealerError

_NODE = """\
# What this does about {mode}, for those who read it in a year.
name: {name}
description: Take the node of a {mode} out of service and move its work elsewhere.
match:
  failure_modes: [{mode}]
  # if: incident.health == "failed"   # CEL; leave it out to answer all of them
  # for: 1m                           # only what has lasted for so long
target: node
approval:
  when: "true"                        # a person is asked; see healer playbook plan for what is shown
  expires_after: 30m
deadline: 1h
resolves_when: contained              # the node is out of service; "healthy": the telemetry says that it is over
steps:
  - id: quarantine
    use: node.cordon
    with: {{reason: '${{incident.failure_mode + ": " + incident.reason}}'}}
    timeout: 2m
    on_failure: keep                  # a faulty node stays out of service also if the drain fails
  - id: evacuate
    use: node.drain
    timeout: 45m
tests:                                # healer playbook rehearse {name}
  - name: a person agrees, and the node is emptied
    workloads: [{{owner: Job/train, node: gpu-002, gpus: 1, count: 2}}]
    incident: {{failure_mode: {mode}, node: gpu-002{gpu}}}
    expect:
      asked: true
      run: succeeded
      incident: resolved
      effects: [cordon gpu-002, evict default/Job/train]
      nodes: {{gpu-002: cordoned}}
  - name: a person says no, and nothing is touched
    incident: {{failure_mode: {mode}, node: gpu-002{gpu}}}
    answer: deny
    expect: {{run: none, incident: escalated, effects: []}}
"""

_RACK = """\
# What this does about {mode}, for those who read it in a year.
name: {name}
description: Give the GPUs of a rack with a {mode} the same lower power limit, and put the limits back afterwards.
match:
  failure_modes: [{mode}]
  # if: incident.health == "failed"   # CEL; leave it out to answer all of them
  # for: 1m                           # only what has lasted for so long
target: rack
params:
  share_of_budget: 0.9                # what the rack may draw meanwhile; config.yaml overrides it
approval:
  when: "true"                        # a person is asked; see healer playbook plan for what is shown
  expires_after: 30m
deadline: 12h
resolves_when: healthy                # the telemetry says that it is over
steps:
  - id: cap
    use: power.cap
    with: {{share_of_budget: '${{params.share_of_budget}}', fallback_share: 0.8, ttl: 2m}}
    timeout: 5m
    on_failure: keep                  # nobody renews the caps any more: they fall back to the safe share
  - id: hold
    use: power.hold
    with: {{share_of_budget: '${{params.share_of_budget}}', lasting: 1m}}
    timeout: 12h
    on_failure: keep
  - id: restore
    use: power.restore
    timeout: 5m
tests:                                # healer playbook rehearse {name}
  - name: a person agrees, the rack is capped, and its limits are put back
    site: {{nodes: 2, rack_budget_watts: 3300}}
    faults: [{{kind: load_surge, at: 1m, rack: rack-1, duration: 4m}}]
    incident: {{failure_mode: {mode}, rack: rack-1, at: 2m, lasts: 3m}}
    expect:
      asked: true
      run: succeeded
      effects: [limit gpu-001, limit gpu-002, restore gpu-001, restore gpu-002]
  - name: a person says no, and nothing is touched
    site: {{nodes: 2, rack_budget_watts: 3300}}
    incident: {{failure_mode: {mode}, rack: rack-1}}
    answer: deny
    expect: {{run: none, incident: escalated, effects: []}}
"""

_JOB = """\
# What this does about {mode}, for those who read it in a year.
name: {name}
description: Restart a job with a {mode}, as a whole, from its last checkpoint.
match:
  failure_modes: [{mode}]
  # if: incident.health == "failed"   # CEL; leave it out to answer all of them
  # for: 1m                           # only what has lasted for so long
target: job
approval:
  when: "true"                        # a person is asked; see healer playbook plan for what is shown
  expires_after: 30m
deadline: 1h
resolves_when: healthy                # the telemetry says that it is over
steps:
  - id: restart
    use: job.restart                  # loses what was done since the last checkpoint
    timeout: 45m
tests:                                # healer playbook rehearse {name}
  - name: a person agrees, and the job is restarted as a whole
    workloads: [{{owner: Job/train, node: gpu-002, gpus: 1, count: 2}}]
    incident: {{failure_mode: {mode}, job: default/Job/train, lasts: 1m}}
    expect:
      asked: true
      run: succeeded
      incident: resolved
      effects: [suspend default/Job/train, resume default/Job/train]
  - name: a person says no, and nothing is touched
    workloads: [{{owner: Job/train, node: gpu-002, gpus: 1, count: 2}}]
    incident: {{failure_mode: {mode}, job: default/Job/train}}
    answer: deny
    expect: {{run: none, incident: escalated, effects: []}}
"""


def scaffold(name: str, mode: FailureMode) -> str:
    """Raises HealerError for what nothing can be done about yet."""
    if mode.startswith("Job"):
        return _JOB.format(name=name, mode=mode)
    if mode is FailureMode.TELEMETRY_LOST:
        raise HealerError(f"{mode} is no reason to take a node out of service, and no verb repairs an exporter yet")
    if mode.startswith("Rack"):
        return _RACK.format(name=name, mode=mode)
    of_gpu = mode.startswith(("Gpu", "Nvlink", "Pcie"))
    return _NODE.format(name=name, mode=mode, gpu=", gpu: 1" if of_gpu else "")
