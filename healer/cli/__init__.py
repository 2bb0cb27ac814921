"""The command line. Exit codes: 0 done, 1 the operation failed or found problems, 2 usage or invalid configuration."""

from __future__ import annotations

import logging
import sys

import click

from healer import __version__
from healer.cli import breaker, demo, deployment, history, models, playbooks, remote, serve, silences, simulate, xid
from healer.errors import HealerError, InvalidDocument


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="healer")
def cli() -> None:
    """healer: an autonomous operator for GPU fleets.

    It watches telemetry, finds failing GPUs and racks over their power budget, plans the repair, asks on-call where it
    is risky, carries it out, and proves that it worked. Start with `healer demo`.
    """
    # Standard output is for what was asked for; only the daemon logs more than trouble.
    serve.log_to_stderr(logging.WARNING)


for command in (
    demo.demo,
    serve.run,
    simulate.simulate,
    deployment.check,
    deployment.init,
    history.backtest,
    remote.status,
    remote.incidents,
    remote.runs,
    remote.approvals,
    remote.approve,
    remote.deny,
    silences.silence,
    breaker.breaker,
    playbooks.playbook,
    models.model,
    xid.xid,
    history.audit,
):
    cli.add_command(command)


def main() -> None:
    """The entry point: every error that is ours is one line, never a trace."""
    try:
        cli.main(standalone_mode=False)
    except InvalidDocument as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except HealerError as error:
        click.echo(f"healer: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
