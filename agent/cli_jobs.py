"""`nearfetch job ...`: the commands of all parts in one group, in the order of a job's life.

Never knows: what they do.
"""

from __future__ import annotations

from agent import (
    cli_events,
    cli_job_change,
    cli_job_life,
    cli_job_make,
    cli_job_ranges,
    cli_job_read,
    cli_job_transfer,
    cli_watch,
)
from agent.cli_options import group

app = group("Jobs: durable downloads that go on after a restart.")

for part in (
    cli_job_make,
    cli_job_transfer,
    cli_job_life,
    cli_job_read,
    cli_watch,
    cli_events,
    cli_job_change,
    cli_job_ranges,
):
    app.registered_commands += part.commands.registered_commands
    app.registered_groups += part.commands.registered_groups
