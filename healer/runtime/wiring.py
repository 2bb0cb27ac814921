"""From the configuration to the parts: the content and the operator. Everything wrong is found before anything runs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from healer.actions.registry import BUILT_IN, check_playbook
from healer.config import BudgetSettings, Config
from healer.content.actions import load_actions
from healer.content.detectors import Detector, load_detectors
from healer.content.models import Model, load_models
from healer.content.people import check_people
from healer.content.playbooks import load_playbooks
from healer.domain.playbook import Playbook
from healer.errors import InvalidDocument, Problem
from healer.policy.breaker import BreakerRule
from healer.policy.budget import DisruptionBudget, ScopeKind
from healer.ports import Clock, Journal
from healer.runtime.book import Book
from healer.runtime.executor import Executor
from healer.runtime.knowledge import Knowledge, Outside, Rules
from healer.runtime.observer import Observer
from healer.runtime.operator import Operator
from healer.runtime.planning import Planner
from healer.runtime.snapshot import Board
from healer.telemetry.frames.window import Window
from healer.verb import Verbs

_T = TypeVar("_T")


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    detectors: tuple[Detector, ...]
    models: tuple[Model, ...]
    playbooks: tuple[Playbook, ...]
    verbs: Verbs


def load_content(config: Config) -> Content:
    """Detectors, models, playbooks and verbs of the deployment. Raises InvalidDocument with the problems of all of
    them.
    """
    problems: list[Problem] = []
    detectors = _collected(lambda: detectors_of(config), problems)
    models = _collected(
        lambda: load_models(config.models.path, settings=config.models.settings, disabled=config.models.disabled),
        problems,
    )
    verbs = _verbs_or_none(config, problems)
    playbooks = _collected(lambda: playbooks_of(config, verbs), problems)
    if problems or verbs is None:
        raise InvalidDocument(*problems)
    return Content(tuple(detectors), tuple(models), tuple(playbooks), verbs)


def detectors_of(config: Config) -> tuple[Detector, ...]:
    """Those of the deployment. Raises InvalidDocument."""
    settings = config.detectors
    return load_detectors(settings.path, settings=settings.settings, disabled=settings.disabled)


def verbs_of(config: Config) -> Verbs:
    """Healer's, and those of the deployment. Raises InvalidDocument."""
    return {**BUILT_IN, **load_actions(config.playbooks.actions, taken=BUILT_IN)}


def playbooks_of(config: Config, verbs: Verbs | None) -> tuple[Playbook, ...]:
    """Those of the deployment, in the order in which they are asked. Raises InvalidDocument.

    Args:
        verbs: None if they cannot be had: then nothing is said about the playbooks' steps.
    """
    settings = config.playbooks

    def check(playbook: Playbook) -> tuple[Problem, ...]:
        return checked(playbook, config, verbs)

    return load_playbooks(settings.path, params=settings.params, disabled=settings.disabled, check=check)


def checked(playbook: Playbook, config: Config, verbs: Verbs | None) -> tuple[Problem, ...]:
    """What is wrong with a playbook that only the verbs, and the people of the deployment, can tell."""
    of_verbs = () if verbs is None else check_playbook(playbook, verbs)
    return (*of_verbs, *check_people(playbook, config.approvals.people()))


def _verbs_or_none(config: Config, problems: list[Problem]) -> Verbs | None:
    try:
        return verbs_of(config)
    except InvalidDocument as error:
        problems += error.problems
        return None


def _collected(load: Callable[[], Sequence[_T]], problems: list[Problem]) -> Sequence[_T]:
    try:
        return load()
    except InvalidDocument as error:
        problems += error.problems
        return ()


def build_observer(config: Config, content: Content, outside: Outside) -> Observer:
    """Without the scheduler as a witness: that is the operator's to give."""
    telemetry = config.telemetry
    return Observer(
        source=outside.source,
        window=Window(
            config.topology.rules(),
            span=telemetry.window,
            max_age=telemetry.max_age,
            remembered={signal for detector in content.detectors for signal in detector.remembers},
        ),
        detectors=content.detectors,
        models=content.models,
        topology=outside.topology,
        notices=outside.notices,
        witness=outside.witness,
        kernel_log=outside.kernel_log,
    )


def build_operator(
    config: Config, *, content: Content, outside: Outside, journal: Journal, board: Board, clock: Clock
) -> Operator:
    knowledge = Knowledge(
        rules=rules_of(config), outside=outside, journal=journal, clock=clock, playbooks=content.playbooks
    )
    observer = build_observer(config, content, outside)
    if outside.cluster is not None and not outside.is_replay:
        observer.scheduler = knowledge.fleet
    return Operator(
        observer=observer,
        planner=Planner(content.playbooks, content.verbs),
        executor=Executor(journal, content.verbs, permit=knowledge.permit, clock=clock),
        knowledge=knowledge,
        book=Book(journal, clock, new_id=lambda kind: f"{kind}-{secrets.token_hex(6)}"),
        journal=journal,
        channel=outside.channel,
        board=board,
        clock=clock,
        deciding=threading.Lock(),
    )


def rules_of(config: Config) -> Rules:
    return Rules(
        mode=config.mode,
        budgets={kind: _budget(getattr(config.budgets, kind)) for kind in ScopeKind},
        breaker=BreakerRule(
            _budget(config.budgets.breaker), config.budgets.breaker.together, config.budgets.breaker.within
        ),
        max_age=config.telemetry.max_age,
        clear_after=config.detectors.clear_after,
        power_floor_w=config.power.floor_watts,
        maintenance=config.detectors.windows(),
        people=config.approvals.people(),
    )


def budgets_of(config: Config) -> Mapping[str, DisruptionBudget]:
    """By their key in config.yaml."""
    return {f"budgets.{kind}": budget for kind, budget in rules_of(config).budgets.items()}


def _budget(settings: BudgetSettings) -> DisruptionBudget:
    return DisruptionBudget(settings.max_nodes, settings.max_percent, settings.at_least)
