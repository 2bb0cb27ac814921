"""What changed playbooks would have done otherwise, as `healer backtest --playbooks` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from healer.cli.incident_text import named
from healer.cli.options import one_line, print_table
from healer.runtime.backtest import Report
from healer.runtime.comparison import ComparisonView, CourseView, DifferenceView, SideView, TallyView
from healer.runtime.side import BREAKER_CLOSES_AFTER
from healer.schema import format_duration

_COLUMNS = ("PLAYBOOK", "PLANS", "QUESTIONS", "RUNS", "FAILED", "NODES OUT", "NODE-HOURS OUT")
_NOTHING = TallyView("", plans=0, questions=0, runs=0, failed_runs=0, nodes_out=0, node_hours=0.0)
_NAMES = {"changed": "instead of the deployed one", "added": "beside the deployed ones", "same": "as it is deployed"}
_SPEAK_FOR_THEMSELVES = ("asks:", "approved", "starts:", "cordon", "uncordon", "limit", "restore")


def show(report: Report) -> None:
    """The figures of both sides as a table, then incident by incident what differs. Nothing if nothing was compared."""
    told = report.stats.comparison
    if told is None:
        return
    click.echo(f"\ndeployed playbooks > changed ones; {_assumed(told)}")
    for given in told.given:
        click.echo("  " + one_line(f"{given.name}: {given.file}, {_NAMES[given.change]}"))
    click.echo()
    print_table(_COLUMNS, _rows(told), empty="no playbooks")
    for line in (*_storms("deployed", told.deployed), *_storms("changed", told.changed)):
        click.echo(one_line(line))
    click.echo(f"\n{_how_many(len(report.differences))} would have gone another way")
    for difference in report.differences:
        click.echo()
        for text in _difference(difference):
            click.echo(text)


def _how_many(count: int) -> str:
    return {0: "no incident", 1: "1 incident"}.get(count, f"{count} incidents")


def _assumed(told: ComparisonView) -> str:
    after = "at once" if told.answer_after == "0s" else f"{told.answer_after} after it was asked"
    return f"mode {told.mode}, and on-call says yes {after}"


def _rows(told: ComparisonView) -> list[tuple[str, ...]]:
    before, after = ({each.playbook: each for each in side.playbooks} for side in (told.deployed, told.changed))
    names = dict.fromkeys((*before, *after))
    rows = [_row(name, before.get(name, _NOTHING), after.get(name, _NOTHING)) for name in names]
    return [*rows, _row("all", _sum(told.deployed.playbooks), _sum(told.changed.playbooks))]


def _row(name: str, before: TallyView, after: TallyView) -> tuple[str, ...]:
    return (
        name,
        _cell(before.plans, after.plans),
        _cell(before.questions, after.questions),
        _cell(before.runs, after.runs),
        _cell(before.failed_runs, after.failed_runs),
        _cell(before.nodes_out, after.nodes_out),
        _cell(before.node_hours, after.node_hours),
    )


def _cell(before: float, after: float) -> str:
    return f"{before:g}" if before == after else f"{before:g} > {after:g}"


def _sum(tallies: Sequence[TallyView]) -> TallyView:
    return TallyView(
        "",
        plans=sum(each.plans for each in tallies),
        questions=sum(each.questions for each in tallies),
        runs=sum(each.runs for each in tallies),
        failed_runs=sum(each.failed_runs for each in tallies),
        nodes_out=sum(each.nodes_out for each in tallies),
        node_hours=round(sum(each.node_hours for each in tallies), 2),
    )


def _storms(name: str, side: SideView) -> Iterator[str]:
    closed = f"a person closes it after {format_duration(BREAKER_CLOSES_AFTER)}"
    for storm in side.breaker:
        yield f"{name}: the breaker opens at {storm.at:%Y-%m-%d %H:%M:%S}, {closed}: {storm.reason}"


def _difference(difference: DifferenceView) -> Iterator[str]:
    where = named(difference.component)
    opened = f"opened {difference.opened_at:%Y-%m-%d %H:%M:%S}"
    yield one_line(f"{difference.incident} {difference.failure_mode} of {where}, {opened}")
    for name, course in (("deployed", difference.deployed), ("changed", difference.changed)):
        for number, line in enumerate(_course(course)):
            yield f"  {'' if number else name:9} {one_line(line)}"


def _course(course: CourseView | None) -> Iterator[str]:
    if course is None:
        yield "no such incident: its fault stands for another one"
        return
    if course.plan is None:
        yield "no playbook answers it"
    elif not course.moments:
        yield f"{course.plan.playbook}, and nothing was done"
    for moment in course.moments:
        why = f": {moment.note}" if moment.note and not moment.what.startswith(_SPEAK_FOR_THEMSELVES) else ""
        yield f"{moment.at:%m-%d %H:%M:%S} {moment.what}{why}"
