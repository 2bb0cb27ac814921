"""Findings into incidents: one life for each fault, however often it is found and whatever follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, FailureMode, Finding, Findings, Health
from healer.domain.frame import Frame, Presence
from healer.domain.incident import Incident, IncidentState, Symptom
from healer.domain.playbook import OnReturn, ResolvesWhen
from healer.policy.causes import Case, roots, rows_of
from healer.policy.common_cause import gathered

REOPENS_WITHIN = timedelta(minutes=30)
_MOST_DAMPED = 5  # doublings of the time to clear
_TOLD_ANEW_AFTER = timedelta(minutes=5)
_MOST_SYMPTOMS = 20
_MOST_JOBS = 50
_SEEN_ENOUGH = 0.9  # of the fleet's GPUs, before what none of them names is gone
_BEFORE_ANYBODY_ACTS = frozenset({IncidentState.OPEN, IncidentState.AWAITING_APPROVAL})


def correlate(
    incidents: Iterable[Incident], findings: Findings, frame: Frame, *, clear_after: timedelta
) -> tuple[Incident, ...]:
    """The incidents that are new or have changed. `incidents` are those that have not ended or still persist.

    What a deeper cause explains opens nothing: it is a symptom of its cause's incident. If the cause is noticed later
    than its effect, and nobody has acted yet, the effect's incident becomes the cause's.

    A finding that persists after its incident has ended is the same fault and opens nothing. An incident ends by
    itself only when its component was *observed* healthy for `clear_after`: silence clears nothing. If its fault comes
    back soon after, it is open again, and has to be healthy for longer the next time. Where another system found the
    fault and has fallen silent, nobody observes any more: that is for a person to look at.
    """
    before = {incident.key: incident for incident in incidents}
    there = [finding for finding in findings.found if not _swapped(finding.component, frame)]
    # Where two detectors find the same, the worse counts, and of two alike the rule.
    ranked = sorted(gathered(there, frame), key=lambda finding: (finding.health, finding.basis is Basis.RULE))
    found = {finding.key: finding for finding in ranked}
    root_of = _roots(found, before, frame)
    turn = _Turn(frame, clear_after, found, root_of, dict(before))
    turn.take_findings()
    turn.look_at_the_others(findings)
    return tuple(incident for incident in turn.incidents.values() if incident != turn.unchanged.get(incident.id))


def _roots(found: Mapping[str, Finding], live: Mapping[str, Incident], frame: Frame) -> dict[str, str]:
    cases = []
    # Of a cause that was away for a while, what it has explained before counts from its return.
    told = {
        symptom.key: max(symptom.found_at, incident.found_at)
        for incident in live.values()
        for symptom in incident.symptoms
        if symptom.found_at is not None
    }
    for key, finding in found.items():
        first = live[key].found_at if key in live and not live[key].gone else told.get(key, frame.at)
        culprit = frozenset[int]() if finding.culprit is None else rows_of(finding.culprit, frame)
        rows = rows_of(finding.component, frame, finding.members)
        cases.append(Case(key, finding.failure_mode, rows, first, culprit))
    for key, incident in live.items():
        if key not in found:
            # Detectors look at minutes at once: what a fault has left behind may still be seen when it is over.
            culprit = frozenset() if incident.culprit is None else rows_of(incident.culprit, frame)
            rows = rows_of(incident.component, frame)
            only = frozenset(symptom.key for symptom in incident.symptoms) if incident.gone else None
            cases.append(Case(key, incident.failure_mode, rows, incident.found_at, culprit, only))
    return roots(cases, frame)


class _Turn:
    """The incidents as one turn changes them.

    Attributes:
        by_key: the live ones by their fault.
        incidents, unchanged: by id, as they are and as they were.
    """

    def __init__(
        self,
        frame: Frame,
        clear_after: timedelta,
        found: Mapping[str, Finding],
        root_of: Mapping[str, str],
        by_key: dict[str, Incident],
    ) -> None:
        self.frame = frame
        self.at = frame.at
        self.clear_after = clear_after
        self.found = found
        self.root_of = root_of
        self.by_key = by_key
        self.incidents = {incident.id: incident for incident in by_key.values()}
        self.unchanged = dict(self.incidents)

    def take_findings(self) -> None:
        for key, finding in self.found.items():
            if self.root_of[key] == key:
                self._take_root(key, finding)
        for key, finding in self.found.items():
            if self.root_of[key] != key:
                self._take_effect(key, finding, self.by_key[self.root_of[key]])
        self._close_parts()

    def look_at_the_others(self, findings: Findings) -> None:
        """The live incidents whose finding is not there."""
        reported = {report.key: report.health for report in sorted(findings.reports, key=lambda report: report.health)}
        looked_on = self._looked_on()
        for key, incident in [*self.by_key.items()]:
            if key in self.found:
                continue
            unbroken = incident if looked_on else _since(incident, None)
            if parted := _parted(incident.component, self.frame):
                self._put(self._not_found(unbroken, Health.HEALTHY, parted))
                continue
            judged = _observed(findings, incident.failure_mode, incident.component, self.frame)
            health = max(judged, reported.get(key, Health.UNKNOWN))
            if health is Health.UNKNOWN and key in reported:
                self._put(_fallen_silent(unbroken, self.at))
            else:
                self._put(self._not_found(unbroken, health))

    def _take_root(self, key: str, finding: Finding) -> None:
        incident = self.by_key.get(key)
        if incident is None:
            incident = self._became(key, finding)
        elif incident.gone:
            incident = self._back(incident, finding)
        else:
            incident = self._refreshed(self._recurred(incident, finding), finding)
        self._put(self._with_jobs(incident))

    def _became(self, key: str, finding: Finding) -> Incident:
        """A new incident; or an older one of which this is the cause, as long as nobody has acted on it."""
        effects = [
            incident
            for other, incident in self.by_key.items()
            if self.root_of.get(other) == key and incident.state in _BEFORE_ANYBODY_ACTS
        ]
        if not effects:
            return Incident.opened(finding, self.at)
        oldest = min(effects, key=lambda incident: incident.opened_at)
        del self.by_key[oldest.key]
        opened = Incident.opened(finding, self.at)
        return replace(
            oldest,
            failure_mode=opened.failure_mode,
            component=opened.component,
            health=opened.health,
            score=opened.score,
            basis=opened.basis,
            reasons=opened.reasons,
            evidence=opened.evidence,
            culprit=opened.culprit,
            vanished=opened.vanished,
            symptoms=(
                Symptom(oldest.failure_mode, oldest.component, oldest.reasons[0], oldest.found_at),
                *oldest.symptoms,
            ),
            since=self.at,
            told_at=self.at,
            changed_at=self.at,
            healthy_since=None,
            story=f"what was found first as {oldest.failure_mode} of {oldest.component} has this cause",
        )

    def _take_effect(self, key: str, finding: Finding, cause: Incident) -> None:
        """What a deeper cause explains is noted there, and is no incident of its own any more."""
        if not cause.state.ended:
            cause = replace(cause, health=max(cause.health, finding.health))
            began = self.by_key[key].found_at if key in self.by_key else self.at
            symptom = Symptom(finding.failure_mode, finding.component, finding.reason, began)
            if len(cause.symptoms) < _MOST_SYMPTOMS and symptom.key not in {known.key for known in cause.symptoms}:
                cause = replace(cause, symptoms=(*cause.symptoms, symptom))
            self._put(cause)
        incident = self.by_key.get(key)
        if incident is not None:
            self._explained(incident, cause)

    def _close_parts(self) -> None:
        """Where a whole was put together from what is now found of its parts, the incidents of these are explained."""
        rows_of_whole: dict[str, frozenset[int]] = {}
        for key, incident in [*self.by_key.items()]:
            whole = self.found.get(self.root_of.get(key, key))
            if key in self.found or whole is None:
                continue
            if whole.key not in rows_of_whole:
                of_parts = (rows_of(member, self.frame) for member in whole.members)
                rows_of_whole[whole.key] = frozenset[int]().union(*of_parts)
            rows = rows_of(incident.component, self.frame)
            if rows and rows <= rows_of_whole[whole.key]:
                self._explained(incident, self.by_key[whole.key])

    def _explained(self, incident: Incident, cause: Incident) -> None:
        if incident.state in _BEFORE_ANYBODY_ACTS:
            story = f"explained by {cause.id}: {cause.failure_mode} of {cause.component}"
            incident = replace(
                incident,
                state=IncidentState.RESOLVED,
                resolved_at=self.at,
                changed_at=self.at,
                persists=False,  # if it outlives its cause, it is news
                verdict=None,
                story=story,
            )
        self._put(replace(incident, healthy_since=None))

    def _back(self, incident: Incident, finding: Finding) -> Incident:
        """It went away by itself lately, for else it would not persist, and is there again: the same incident."""
        opened = Incident.opened(finding, self.at)
        count = incident.reopened + 1
        return replace(
            opened,
            id=incident.id,
            opened_at=incident.opened_at,
            since=self.at,
            health=max(incident.health, opened.health),
            symptoms=incident.symptoms,
            jobs=incident.jobs,
            line=incident.line,
            reopened=count,
            story=f"back after it went away by itself, time {count}",
        )

    def _recurred(self, incident: Incident, finding: Finding) -> Incident:
        """Open again if the remedy has not lasted: the fault is back, or is still there when it should long be gone."""
        if incident.state is not IncidentState.VERIFYING or _contains(incident):
            return incident
        if incident.healthy_since is None and self.at - incident.changed_at < max(self.clear_after, finding.lags):
            return incident
        plan = incident.plan
        again = plan is not None and plan.on_return is OnReturn.AGAIN
        following = plan.otherwise if plan is not None and not again else None
        tried = (f"{plan.playbook} has not helped",) if plan is not None and following else ()
        return replace(
            incident,
            state=IncidentState.OPEN,
            changed_at=self.at,
            run_id=None,
            next_playbook="" if again else following or incident.next_playbook,
            tried=(*incident.tried, *tried),
            story="found again after its remedy" + (f"; {following} is next" if following else ""),
        )

    def _refreshed(self, incident: Incident, finding: Finding) -> Incident:
        """Its worst health stays, so that flapping does not lower the severity; what convinced is renewed when it has
        become worse, and now and then.
        """
        if incident.state.ended:
            return replace(incident, healthy_since=None)
        worse = finding.health > incident.health or finding.culprit not in {None, incident.culprit}
        told = worse or self.at - (incident.told_at or incident.opened_at) >= _TOLD_ANEW_AFTER
        return replace(
            incident,
            component=finding.component,
            vanished=incident.vanished and finding.vanished,
            health=max(incident.health, finding.health),
            score=max(incident.score, finding.score),
            basis=Basis.RULE if finding.basis is Basis.RULE else incident.basis,
            reasons=(finding.reason, *finding.disputed) if told else incident.reasons,
            evidence=(finding.evidence or incident.evidence) if told else incident.evidence,
            culprit=finding.culprit or incident.culprit,
            told_at=self.at if told else incident.told_at,
            healthy_since=None,
        )

    def _with_jobs(self, incident: Incident) -> Incident:
        """Whose GPUs it touches, once that can be told: the blast radius."""
        if incident.state.ended or len(incident.jobs) >= _MOST_JOBS:
            return incident
        rows = self.frame.jobs.of_gpu[self.frame.parts_of(incident.component)]
        names = [str(self.frame.jobs.components[row].job) for row in np.unique(rows[rows >= 0]).tolist()]
        new = [name for name in names if name not in incident.jobs]
        return replace(incident, jobs=(*incident.jobs, *new)[:_MOST_JOBS]) if new else incident

    def _not_found(self, incident: Incident, health: Health, parted: str = "") -> Incident:
        if health is not Health.HEALTHY:
            long_over = incident.gone and incident.resolved_at and self.at - incident.resolved_at >= REOPENS_WITHIN
            incident = replace(incident, persists=False) if long_over and incident.persists else incident
            return _since(incident, None)
        since = incident.healthy_since or self.at
        incident = _since(incident, since)
        if not self._is_over(incident):
            return incident
        if incident.state.ended:
            by_itself = incident.state is IncidentState.RESOLVED and incident.run_id is None
            return replace(incident, gone=True, persists=by_itself and self.at - since < REOPENS_WITHIN)
        if not _may_end(incident):
            return incident
        how = "remedied" if incident.state is IncidentState.VERIFYING else "it went away by itself"
        return replace(
            incident,
            state=IncidentState.RESOLVED,
            resolved_at=self.at,
            changed_at=self.at,
            gone=True,
            persists=incident.run_id is None,
            verdict=None,
            story=parted or f"{how}: observed healthy since {since:%H:%M:%S}Z",
        )

    def _is_over(self, incident: Incident) -> bool:
        """Whether it has been healthy for long enough, which is longer for one that has come back before."""
        damped = self.clear_after * 2 ** min(incident.reopened, _MOST_DAMPED)
        return incident.healthy_since is not None and self.at - incident.healthy_since >= damped

    def _looked_on(self) -> bool:
        """Whether the frame before this one is recent: what was healthy before a long silence counts anew."""
        times = self.frame.times
        if len(times) <= 1:
            return False
        usual_s = 2.0 * float(np.median(np.diff(times[:-1]))) if len(times) > 2 else 0.0
        return bool(-times[-2] <= max(self.clear_after.total_seconds(), usual_s))

    def _put(self, incident: Incident) -> None:
        self.by_key[incident.key] = incident
        self.incidents[incident.id] = incident


def _observed(findings: Findings, mode: FailureMode, where: Component, frame: Frame) -> Health:
    """The health that was observed: of the component itself, or of all its parts where only those are judged."""
    own = findings.health_of(mode, where.kind, frame.row_of(where))
    if own is not Health.UNKNOWN or where.kind is ComponentKind.GPU:
        return own
    gpus = frame.parts_of(where)
    nodes = np.unique(frame.nodes.groups.of_gpu[gpus])
    of_gpus = findings.health_of_all(mode, ComponentKind.GPU, gpus)
    of_nodes = findings.health_of_all(mode, ComponentKind.NODE, nodes[nodes >= 0])
    return max(of_gpus, of_nodes)


def _parted(where: Component, frame: Frame) -> str:
    """That the component is no longer there to be healthy, in words; empty while it is, or while nobody can tell.

    A job and a rack are there only by the GPUs that name them, and what is silent keeps its names.
    """
    match where.kind:
        case ComponentKind.JOB | ComponentKind.RACK if frame.row_of(where) is None:
            seen = frame.current.mean() if len(frame.gpus) else 0.0
            return f"no GPU is of {where} any more" if seen >= _SEEN_ENOUGH else ""
        case _ if _swapped(where, frame):
            return "another GPU is in its place"
        case _:
            return ""


def _swapped(where: Component, frame: Frame) -> bool:
    """Whether it is a GPU in whose place another one is now: what is still known of it is of the past."""
    if where.kind is not ComponentKind.GPU:
        return False
    return any(presence == Presence.REPLACED for presence in frame.presence[frame.parts_of(where)].tolist())


def _since(incident: Incident, healthy_since: datetime | None) -> Incident:
    """The incident itself if nothing changes: of thousands that wait, hardly one does."""
    return incident if incident.healthy_since == healthy_since else replace(incident, healthy_since=healthy_since)


def _fallen_silent(incident: Incident, at: datetime) -> Incident:
    """Who found it would long have repeated it, and has not said that it is over: if it is found again, it is news."""
    incident = _since(incident, None)
    if incident.state.ended:
        return replace(incident, persists=False)
    if incident.state is not IncidentState.OPEN:
        return incident
    story = "who reported it has fallen silent, neither repeating it nor calling it over: a person has to look"
    return replace(incident, state=IncidentState.ESCALATED, changed_at=at, persists=False, story=story)


def _may_end(incident: Incident) -> bool:
    """A run that is under way ends first; one that must contain is verified in the cluster, not in the telemetry.

    A node that a failed run keeps out of service is somebody's business, also if its telemetry looks well.
    """
    match incident.state:
        case IncidentState.OPEN | IncidentState.AWAITING_APPROVAL:
            return not incident.kept
        case IncidentState.VERIFYING:
            return not _contains(incident)
        case IncidentState.REMEDIATING | IncidentState.RESOLVED | IncidentState.ESCALATED:  # pragma: no branch
            return False


def _contains(incident: Incident) -> bool:
    """Whether the incident's plan leaves the fault where it is and takes its component out of service."""
    return incident.plan is None or incident.plan.resolves_when is ResolvesWhen.CONTAINED
