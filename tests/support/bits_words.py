"""Every command of bitsadmin and every cmdlet and parameter of PowerShell's BitsTransfer, and what it is here.

The README's table is made of it (`python -m tests.support.bits_words` prints it); a test holds that nothing of the
list below is missing and that every command named exists. Source: bits-reference 7.1, 7.2.
"""

from __future__ import annotations

import re


def _words(text: str) -> list[str]:
    return text.split()


BITSADMIN = _words("""
create addfile addfileset addfilewithranges resume suspend cancel complete takeownership replaceremoteprefix reset
transfer
list listfiles info monitor
getaclflags getbytestotal getbytestransferred getclientcertificate getcompletiontime getcreationtime
getcustomheaders
getdescription getdisplayname geterror geterrorcount getfilestotal getfilestransferred gethelpertokenflags
gethelpertokensid gethttpmethod getmaxdownloadtime getminretrydelay getmodificationtime getnoprogresstimeout
getnotifycmdline getnotifyflags getnotifyinterface getowner getpeercachingflags getpriority getproxybypasslist
getproxylist getproxyusage getreplydata getreplyfilename getreplyprogress getsecurityflags getstate gettemporaryname
gettype getvalidationstate
setaclflags setclientcertificatebyid setclientcertificatebyname setcredentials setcustomheaders setdescription
setdisplayname sethelpertoken sethelpertokenflags sethttpmethod setmaxdownloadtime setminretrydelay
setnoprogresstimeout setnotifycmdline setnotifyflags setpeercachingflags setpriority setproxysettings
setreplyfilename setsecurityflags setvalidationstate
removeclientcertificate removecredentials makecustomheaderswriteonly
cache/list cache/info cache/delete cache/deleteurl cache/clear cache/getlimit cache/setlimit cache/getexpirationtime
cache/setexpirationtime
peers/list peers/clear peers/discover
peercaching/getconfigurationflags peercaching/setconfigurationflags
util/version util/getieproxy util/setieproxy util/repairservice util/enableanalyticchannel
rawreturn wrap nowrap
""")
"""The words of bits-reference 7.1, without slashes and with their group in front where there is one."""

BITS_TRANSFER = _words("""
Start-BitsTransfer Start-BitsTransfer:Asynchronous Start-BitsTransfer:Suspended Start-BitsTransfer:Dynamic
Start-BitsTransfer:Source/Destination Start-BitsTransfer:TransferType Start-BitsTransfer:Priority
Start-BitsTransfer:RetryInterval Start-BitsTransfer:RetryTimeout Start-BitsTransfer:MaxDownloadTime
Start-BitsTransfer:TransferPolicy Start-BitsTransfer:Credential/Authentication Start-BitsTransfer:Proxy*
Start-BitsTransfer:SecurityFlags Start-BitsTransfer:CustomHeaders Start-BitsTransfer:CustomHeadersWriteOnly
Start-BitsTransfer:HttpMethod Start-BitsTransfer:CertStore* Start-BitsTransfer:NotifyFlags
Start-BitsTransfer:NotifyCmdLine Start-BitsTransfer:UseStoredCredential
Get-BitsTransfer Get-BitsTransfer:Name Get-BitsTransfer:JobId Get-BitsTransfer:AllUsers
Add-BitsFile Set-BitsTransfer Set-BitsTransfer:SetOwnerToCurrentUser Suspend-BitsTransfer Resume-BitsTransfer
Resume-BitsTransfer:Asynchronous Complete-BitsTransfer Remove-BitsTransfer
""")
"""Those of 7.2: `CMDLET` or `CMDLET:PARAMETER`."""

NO_OTHER_USERS = "each user has an agent, and sees only that one's jobs"
DOWNLOADS_ONLY = "uploads do not exist here; such a job is refused with `UPLOAD_UNSUPPORTED`"
NO_SMB = "copying of access rights is for SMB; files get the agent's umask"
NO_TOKENS = "a Windows identity for SMB and NTLM; an agent runs as one user"
DYNAMIC = "every job finds a way by itself when a server has no HEAD, length or ranges"
TIMES = "seconds since 1970"

Row = tuple[str, str, str]
"""Their words (of the lists above, with spaces between), our command or "", and a note or the reason."""

ROWS: list[Row] = [
    (
        "create",
        "nearfetch job create NAME",
        "SUSPENDED, as there; `/upload` and `/upload-reply`: " + DOWNLOADS_ONLY,
    ),
    ("addfile", "nearfetch job add JOB URL PATH", ""),
    ("addfileset", "nearfetch job add-set JOB LISTFILE", "all or none; `-` reads standard input"),
    ("addfilewithranges", "nearfetch job add JOB URL PATH --range OFF:LEN", "`--range` repeats; `OFF:eof`"),
    ("resume", "nearfetch job resume JOB", "several JOBs, or `--all`"),
    ("suspend", "nearfetch job suspend JOB", "several JOBs, or `--all`"),
    ("cancel", "nearfetch job cancel JOB", "several JOBs, or `--all`"),
    ("complete", "nearfetch job complete JOB", "several JOBs, or `--all`: those in TRANSFERRED"),
    ("takeownership", "", f"no owners to change: {NO_OTHER_USERS}"),
    ("replaceremoteprefix", "nearfetch job replace-prefix JOB OLD NEW", ""),
    ("reset", "nearfetch job reset", f"asks unless `--yes`; `/allusers`: {NO_OTHER_USERS}"),
    (
        "transfer",
        "nearfetch job transfer NAME URL PATH",
        f"more pairs may follow; Ctrl-C leaves the job SUSPENDED; `/dynamic`: {DYNAMIC}; `/aclflags`: {NO_SMB}",
    ),
    (
        "list",
        "nearfetch job list",
        f"`--state`, `--name GLOB`; `/verbose`: `--long`; `/allusers`: {NO_OTHER_USERS}",
    ),
    ("listfiles", "nearfetch job show JOB --files", ""),
    ("info", "nearfetch job show JOB", "everything, as with `/verbose`; its events: `nearfetch job log JOB`"),
    ("monitor", "nearfetch job watch", "every second, or `--refresh S`; named JOBs only until they rest"),
    ("getaclflags setaclflags", "", NO_SMB),
    ("getbytestotal", "nearfetch job get JOB bytes-total", ""),
    ("getbytestransferred", "nearfetch job get JOB bytes-transferred", ""),
    ("getclientcertificate", "nearfetch job get JOB client-certificate", ""),
    ("getcompletiontime", "nearfetch job get JOB completed-at", TIMES),
    ("getcreationtime", "nearfetch job get JOB created-at", TIMES),
    ("getcustomheaders", "nearfetch job get JOB headers", "nothing when they are write-only"),
    ("getdescription", "nearfetch job get JOB description", ""),
    ("getdisplayname", "nearfetch job get JOB name", ""),
    ("geterror", "nearfetch job get JOB error", "also `error-message`, `error-context`, `error-file`"),
    ("geterrorcount", "nearfetch job get JOB error-count", ""),
    ("getfilestotal", "nearfetch job get JOB files-total", ""),
    ("getfilestransferred", "nearfetch job get JOB files-transferred", ""),
    ("gethelpertokenflags gethelpertokensid sethelpertoken sethelpertokenflags", "", NO_TOKENS),
    ("gethttpmethod", "nearfetch job get JOB method", ""),
    ("getmaxdownloadtime", "nearfetch job get JOB maximum-download-time", "seconds"),
    ("getminretrydelay", "nearfetch job get JOB minimum-retry-delay", "seconds"),
    ("getmodificationtime", "nearfetch job get JOB modified-at", TIMES),
    ("getnoprogresstimeout", "nearfetch job get JOB no-progress-timeout", "seconds"),
    ("getnotifycmdline", "nearfetch job get JOB notify-command", "of all jobs: `nearfetch audit`"),
    ("getnotifyflags", "nearfetch job get JOB notify-flags", ""),
    (
        "getnotifyinterface",
        "",
        "COM; listeners use the Python library or the stream of events (`nearfetch job events`)",
    ),
    ("getowner", "nearfetch job get JOB owner", ""),
    ("getpeercachingflags", "nearfetch job get JOB peer-fetch", "and `peer-serve`"),
    ("getpriority", "nearfetch job get JOB priority", ""),
    ("getproxybypasslist", "nearfetch job get JOB proxy-bypass", ""),
    ("getproxylist", "nearfetch job get JOB proxy-url", "one proxy, not a list"),
    ("getproxyusage", "nearfetch job get JOB proxy", ""),
    ("getreplydata getreplyfilename getreplyprogress setreplyfilename", "", DOWNLOADS_ONLY),
    ("getsecurityflags", "nearfetch job get JOB security", "redirects apart: `redirects`, `https-to-http`"),
    ("getstate", "nearfetch job get JOB state", "one more than in BITS: VALIDATING"),
    ("gettemporaryname", "nearfetch job get JOB temporary-path INDEX", ""),
    ("gettype", "nearfetch job get JOB type", "always download"),
    ("getvalidationstate", "nearfetch job get JOB validation INDEX", "undecided, valid or invalid"),
    (
        "setclientcertificatebyid setclientcertificatebyname",
        "nearfetch job set JOB --client-certificate FILE",
        "a PEM file: there is no certificate store to search by id or name; the key apart: `--client-key`",
    ),
    (
        "setcredentials",
        "nearfetch job credentials set JOB --scheme basic --user NAME",
        "basic, digest or bearer (NTLM, Negotiate, Passport are Windows'); never a password on the command line",
    ),
    (
        "setcustomheaders",
        "nearfetch job set JOB --header 'NAME: VALUE'",
        "replaces all; `--no-headers` takes them away",
    ),
    ("setdescription", "nearfetch job set JOB --description TEXT", ""),
    ("setdisplayname", "nearfetch job set JOB --name TEXT", ""),
    ("sethttpmethod", "nearfetch job set JOB --method WORD", ""),
    ("setmaxdownloadtime", "nearfetch job set JOB --maximum-download-time TIME", ""),
    ("setminretrydelay", "nearfetch job set JOB --minimum-retry-delay TIME", ""),
    ("setnoprogresstimeout", "nearfetch job set JOB --no-progress-timeout TIME", ""),
    (
        "setnotifycmdline",
        "nearfetch job set JOB --notify-command PROGRAM --notify-arg ARG",
        "no shell; `off` removes it; `nearfetch run --no-notify-commands` forbids it for all",
    ),
    ("setnotifyflags", "nearfetch job set JOB --notify-flags 3", "the same numbers, or words"),
    ("setpeercachingflags", "nearfetch job set JOB --peer-fetch --no-peer-serve", "two switches"),
    ("setpriority", "nearfetch job set JOB --priority low", ""),
    (
        "setproxysettings",
        "nearfetch job set JOB --proxy-url http://HOST:PORT",
        "`--proxy none`, `preconfigured` (the environment) or `autodetect` (the same: no WPAD); `--proxy-bypass`",
    ),
    (
        "setsecurityflags",
        "nearfetch job set JOB --security ignore-name",
        "words instead of bits; redirects apart: `--redirects`, `--https-to-http`",
    ),
    ("setvalidationstate", "nearfetch job validate JOB INDEX valid", "or `invalid`"),
    ("removeclientcertificate", "nearfetch job set JOB --client-certificate off", ""),
    ("removecredentials", "nearfetch job credentials remove JOB --scheme basic", ""),
    ("makecustomheaderswriteonly", "nearfetch job set JOB --headers-write-only", ""),
    ("cache/list", "nearfetch cache list", "`/verbose`: `--long`"),
    ("cache/info", "nearfetch cache show RECORD", ""),
    ("cache/delete", "nearfetch cache delete RECORD", ""),
    ("cache/deleteurl", "nearfetch cache delete-url URL", ""),
    ("cache/clear", "nearfetch cache clear", ""),
    ("cache/getlimit", "nearfetch cache limit", ""),
    ("cache/setlimit", "nearfetch cache limit --share 10%", "or `--bytes SIZE`"),
    ("cache/getexpirationtime", "nearfetch cache age", ""),
    ("cache/setexpirationtime", "nearfetch cache age 90d", ""),
    ("peers/list", "nearfetch peer list", "one peer: `nearfetch peer show PEER`"),
    ("peers/clear", "nearfetch peer clear", "one peer: `nearfetch peer forget PEER`"),
    ("peers/discover", "nearfetch peer discover", "agents also find each other by themselves"),
    ("peercaching/getconfigurationflags", "nearfetch cache switch", ""),
    ("peercaching/setconfigurationflags", "nearfetch cache switch --fetch on --serve on", ""),
    ("util/version", "nearfetch --version", "of the agent that runs: `nearfetch agent show`"),
    (
        "util/getieproxy util/setieproxy",
        "",
        "the proxy of Windows' service accounts; an agent takes its own from its environment (`http_proxy`)",
    ),
    ("util/repairservice", "nearfetch doctor", "a damaged database is set aside by the agent itself at start"),
    ("util/enableanalyticchannel", "nearfetch run --log-level debug", "Windows' event log; ours is standard error"),
    ("rawreturn", "nearfetch job get JOB PROPERTY", "bare already; every command has `--json`"),
    ("wrap nowrap", "", "lines are never folded"),
    (
        "Start-BitsTransfer",
        "nearfetch job transfer NAME URL PATH",
        "`--priority foreground` for its default; for one file also `nearfetch get URL`",
    ),
    (
        "Start-BitsTransfer:Asynchronous",
        "nearfetch job create NAME",
        "then `nearfetch job add` and `nearfetch job resume`; `nearfetch job complete` at the end",
    ),
    ("Start-BitsTransfer:Suspended", "nearfetch job create NAME", "then `nearfetch job add`"),
    ("Start-BitsTransfer:Dynamic", "nearfetch job transfer NAME URL PATH", DYNAMIC),
    (
        "Start-BitsTransfer:Source/Destination",
        "nearfetch job transfer NAME URL PATH",
        "pairs; a long list: `nearfetch job add-set`; wildcards are for SMB",
    ),
    ("Start-BitsTransfer:TransferType", "nearfetch job create NAME --type download", DOWNLOADS_ONLY),
    ("Start-BitsTransfer:Priority", "nearfetch job transfer NAME URL PATH --priority high", ""),
    ("Start-BitsTransfer:RetryInterval", "nearfetch job transfer NAME URL PATH --minimum-retry-delay TIME", ""),
    ("Start-BitsTransfer:RetryTimeout", "nearfetch job transfer NAME URL PATH --no-progress-timeout TIME", ""),
    ("Start-BitsTransfer:MaxDownloadTime", "nearfetch job transfer NAME URL PATH --maximum-download-time TIME", ""),
    (
        "Start-BitsTransfer:TransferPolicy",
        "nearfetch run --work-hours HOURS --work-limit RATES",
        "costs of a network are not known here; hours and rates are",
    ),
    (
        "Start-BitsTransfer:Credential/Authentication",
        "nearfetch job credentials set JOB --scheme digest --user NAME",
        "between `nearfetch job create` and `nearfetch job resume`",
    ),
    ("Start-BitsTransfer:Proxy*", "nearfetch job transfer NAME URL PATH --proxy-url http://HOST:PORT", ""),
    ("Start-BitsTransfer:SecurityFlags", "nearfetch job transfer NAME URL PATH --security ignore-date", ""),
    ("Start-BitsTransfer:CustomHeaders", "nearfetch job transfer NAME URL PATH --header 'NAME: VALUE'", ""),
    ("Start-BitsTransfer:CustomHeadersWriteOnly", "nearfetch job transfer NAME URL PATH --headers-write-only", ""),
    ("Start-BitsTransfer:HttpMethod", "nearfetch job transfer NAME URL PATH --method WORD", ""),
    (
        "Start-BitsTransfer:CertStore*",
        "nearfetch job transfer NAME URL PATH --client-certificate FILE",
        "a PEM file instead of a store",
    ),
    ("Start-BitsTransfer:NotifyFlags", "nearfetch job transfer NAME URL PATH --notify-flags 3", ""),
    ("Start-BitsTransfer:NotifyCmdLine", "nearfetch job transfer NAME URL PATH --notify-command PROGRAM", ""),
    ("Start-BitsTransfer:UseStoredCredential", "", "Windows' credential manager"),
    ("Get-BitsTransfer", "nearfetch job list", "one job: `nearfetch job show JOB`"),
    ("Get-BitsTransfer:Name", "nearfetch job list --name GLOB", ""),
    ("Get-BitsTransfer:JobId", "nearfetch job show JOB", ""),
    ("Get-BitsTransfer:AllUsers", "", NO_OTHER_USERS),
    ("Add-BitsFile", "nearfetch job add JOB URL PATH", ""),
    ("Set-BitsTransfer", "nearfetch job set JOB --priority high", "every option of `nearfetch job create`"),
    ("Set-BitsTransfer:SetOwnerToCurrentUser", "", f"no owners to change: {NO_OTHER_USERS}"),
    ("Suspend-BitsTransfer", "nearfetch job suspend JOB", ""),
    ("Resume-BitsTransfer", "nearfetch job resume JOB", "then `nearfetch job wait JOB`"),
    ("Resume-BitsTransfer:Asynchronous", "nearfetch job resume JOB", "returns at once"),
    ("Complete-BitsTransfer", "nearfetch job complete JOB", ""),
    ("Remove-BitsTransfer", "nearfetch job cancel JOB", ""),
]


def table() -> str:
    """The table as Markdown."""
    lines = ["| bitsadmin, BitsTransfer | nearfetch | note |", "|---|---|---|"]
    lines += [f"| {_theirs(theirs)} | {_ours(ours)} | {_cell(note) or '–'} |" for theirs, ours, note in ROWS]
    return "\n".join(lines)


def commands_in(text: str) -> list[list[str]]:
    """The words of every `nearfetch ...` in backticks."""
    return [found.split()[1:] for found in re.findall(r"`(nearfetch [^`]*)`", text)]


def _theirs(words: str) -> str:
    return ", ".join(f"`{_spelled(word)}`" for word in words.split())


def _spelled(word: str) -> str:
    cmdlet, colon, parameter = word.partition(":")
    if colon:
        return f"{cmdlet} " + " ".join(f"-{name}" for name in parameter.split("/"))
    if word in BITS_TRANSFER:
        return word
    return " ".join(f"/{part}" for part in word.split("/"))


def _ours(command: str) -> str:
    return f"`{_cell(command)}`" if command else "does not apply"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(table())
