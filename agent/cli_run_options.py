"""Every setting of the configuration as a flag of `run`; a test compares the two.

The values are texts, read where those of the file and the environment are read (config_parsers.py). The group's key
has no flag: it is a secret, and command lines can be read by every user of the machine.
Never knows: what the settings do.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

TIME = "S"
SIZE = "SIZE|off"
COUNT = "N|off"
RATES = "RATES|off"
HOURS = "HOURS|off"


def _text(metavar: str, help_text: str) -> Any:
    return Annotated[str | None, typer.Option(metavar=metavar, help=help_text)]


def _many(metavar: str, help_text: str) -> Any:
    return Annotated[list[str] | None, typer.Option(metavar=metavar, help=f"{help_text} May be repeated.")]


def _switch(name: str, help_text: str) -> Any:
    return Annotated[bool | None, typer.Option(f"--{name}/--no-{name}", help=help_text)]


SETTINGS: dict[str, Any] = {
    "interface": _many("NAME", "Interface or address to find peers on."),
    "name": _text("TEXT", "This agent's name, for people."),
    "listen_host": _text("ADDRESS", "Address for peers. Default: all."),
    "listen_port": Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port for peers. 0: the system chooses.")
    ],
    "peer": _many("HOST:PORT", "A peer that multicast does not reach."),
    "peer_fetch": _switch("peer-fetch", "Whether jobs may take from peers."),
    "peer_serve": _switch("peer-serve", "Whether peers may take from this agent."),
    "cache_max_bytes": _text(SIZE, "Limit of the peer cache, such as 20GiB."),
    "cache_max_share": _text("PART", "Its share of the disk, from 0 to 1."),
    "cache_max_age_s": _text(TIME, "Seconds after which what nobody asks for leaves it."),
    "integrity": _text("LEVEL", "vouched, anchored or whole: what chunks from peers must rest on."),
    "background_jobs": _text("N", "Background jobs that transfer at once."),
    "connections_per_host": _text("N", "Background jobs that fetch from one host at once."),
    "time_slice_s": _text(TIME, "Seconds until a job makes room for one of the same priority."),
    "minimum_retry_delay_s": _text(TIME, "Longest seconds between two tries."),
    "no_progress_timeout_s": _text(TIME, "Seconds without progress until ERROR."),
    "maximum_download_time_s": _text(TIME, "Seconds that a job may connect and transfer."),
    "job_inactivity_timeout_s": _text(TIME, "Seconds until an untouched job is cancelled."),
    "max_jobs_per_machine": _text(COUNT, "Most jobs at once."),
    "max_jobs_per_user": _text(COUNT, "Most jobs of one user."),
    "max_files_per_job": _text(COUNT, "Most files in a job."),
    "max_ranges_per_file": _text(COUNT, "Most ranges of one file."),
    "bandwidth_limit": _text(RATES, "Of background jobs: 2MB, or high=off,normal=1MB,low=0."),
    "work_hours": _text(HOURS, "Such as mon-fri 08:00-17:00."),
    "work_limit": _text(RATES, "As --bandwidth-limit, during the work hours."),
    "maintenance_hours": _text(HOURS, "Such as daily 22:00-06:00."),
    "maintenance_limit": _text(RATES, "As --bandwidth-limit, during the maintenance hours."),
    "upload_limit": _text(SIZE, "Bytes per second for all peers together."),
    "notify_commands": _switch("notify-commands", "Whether jobs may have a notify command."),
    "ca_file": _text("FILE", "PEM with further authorities for origins."),
    "group_ca_file": _text("FILE", "PEM of the authority of a group that an administrator runs."),
    "group_certificate_file": _text("FILE", "PEM of this agent's certificate in it."),
    "group_key_file": _text("FILE", "PEM of that certificate's key."),
    "log_level": _text("LEVEL", "debug, info, warning or error."),
}
"""Key of the configuration -> the option. The defaults are in the README's table of settings."""
