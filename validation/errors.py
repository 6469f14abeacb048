"""What can go wrong in this package.

ValidationError                 base: catch this to catch all of them
├── DigestFormatError           text that is no digest
├── ManifestError               a manifest that cannot be read or exceeds a limit
├── ValidatorNotFound           no validator of that name (carries the nearest names)
├── ValidatorArgumentError      the validator exists, its argument is wrong
├── ValidatorBroken             the plug-in behind a name cannot be loaded or used
└── ValidationStopped           the caller no longer waits for a verdict
"""

from __future__ import annotations


class ValidationError(Exception):
    """Base of this package's errors. `str(error)` is one sentence meant for the user."""


class DigestFormatError(ValidationError, ValueError):
    """Text that is not `algorithm:hex` of the right length."""


class ManifestError(ValidationError, ValueError):
    """A manifest that is malformed, contradicts itself, or exceeds a limit."""


class ValidatorNotFound(ValidationError, LookupError):
    """No validator of that name is installed. `near` holds up to three names that look alike."""

    def __init__(self, name: str, near: tuple[str, ...]) -> None:
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"unknown validator {name!r}{hint}")
        self.name = name
        self.near = near


class ValidatorArgumentError(ValidationError, ValueError):
    """The argument given to a validator cannot be used."""


class ValidatorBroken(ValidationError):
    """The plug-in behind a name cannot be imported, or what it offers is no validator."""


class ValidationStopped(ValidationError):
    """The caller no longer waits: time is up, or it said so. Raised by `Patience.check`."""
