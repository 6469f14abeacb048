"""The test suite that the author of a validator runs against it. Needs nothing but this package.

    from validation.conformance import Examples, check

    def test_my_validator(tmp_path):
        check(Examples(make=lambda: my_factory("argument"), good=Path("good.bin"), bad=Path("bad.bin")))

`check` runs every test of `CHECKS` on copies in a directory of its own and raises one ConformanceError that names
all that failed; to see them one by one, parametrise over `CHECKS` and call `check_one`.
Never knows: which validator it is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from validation.validator import BytesFrom, Candidate, Decision, Patience, Validator, Verdict, judge

TIME_LIMIT_S = 60.0
"""How long one validation of an example may take before it counts as hanging."""


class ConformanceError(AssertionError):
    """The validator breaks the contract. The message has one line for each test that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """A validator, a file it has to accept and a file it has to reject."""

    make: Callable[[], Validator]
    """Makes the validator; called once or twice for each test."""
    good: Path
    bad: Path
    url: str = "https://origin.example/file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The examples, and an empty directory for one test."""

    examples: Examples
    directory: Path

    def put(self, example: Path, name: str = "candidate.part") -> Candidate:
        """A copy of the example under `name`, as the agent would present it."""
        path = self.directory / name
        shutil.copyfile(example, path)
        return self.candidate(path)

    def candidate(self, path: Path) -> Candidate:
        """Whatever is at `path`, presented as a download."""
        length = path.stat().st_size if path.is_file() else 0
        return Candidate(path=path, url=self.examples.url, length=length, name="file", bytes_from=BytesFrom.ORIGIN)

    def judge(self, candidate: Candidate, validator: Validator | None = None) -> Verdict:
        """The verdict as the agent would get it."""
        return judge(validator or self.examples.make(), candidate, _patience())


def check(examples: Examples) -> None:
    """Run every test. Raises ConformanceError when at least one fails."""
    problems: list[str] = []
    for name in CHECKS:
        try:
            check_one(name, examples)
        except ConformanceError as error:
            problems.append(str(error))
    if problems:
        raise ConformanceError("\n".join(problems))


def check_one(name: str, examples: Examples) -> None:
    """Run the test called `name`. Raises ConformanceError when it fails, KeyError when there is none."""
    with _directory() as directory:
        problem = CHECKS[name](Scene(examples=examples, directory=directory))
    if problem:
        raise ConformanceError(f"{name}: {problem}")


def accepts_good(scene: Scene) -> str | None:
    """The good file is ACCEPTED."""
    return _expect(scene.judge(scene.put(scene.examples.good)), Decision.ACCEPTED)


def rejects_bad(scene: Scene) -> str | None:
    """The bad file is REJECTED, wherever its bytes came from."""
    return _expect(scene.judge(scene.put(scene.examples.bad)), Decision.REJECTED)


def leaves_the_file_alone(scene: Scene) -> str | None:
    """Neither file nor directory changes."""
    for example in (scene.examples.good, scene.examples.bad):
        candidate = scene.put(example)
        before = _snapshot(scene.directory)
        scene.judge(candidate)
        if _snapshot(scene.directory) != before:
            return f"validating {example.name} changed the file or its directory"
    return None


def answers_the_same_twice(scene: Scene) -> str | None:
    """One validator asked twice, and a second validator, all agree."""
    for example in (scene.examples.good, scene.examples.bad):
        candidate, validator = scene.put(example), scene.examples.make()
        answers = [scene.judge(candidate, validator), scene.judge(candidate, validator), scene.judge(candidate)]
        if len({answer.decision for answer in answers}) > 1:
            return f"three answers about {example.name}: " + ", ".join(answer.decision for answer in answers)
    return None


def judges_an_empty_file(scene: Scene) -> str | None:
    """An empty file is a file: it is accepted or rejected, and nothing crashes."""
    path = scene.directory / "empty.part"
    path.touch()
    return _expect(scene.judge(scene.candidate(path)), Decision.ACCEPTED, Decision.REJECTED)


def fails_on_a_missing_file(scene: Scene) -> str | None:
    """A file that is not there is a failure: not right, and not wrong either."""
    return _expect(scene.judge(scene.candidate(scene.directory / "missing.part")), Decision.FAILED)


def fails_on_a_directory(scene: Scene) -> str | None:
    """A directory in the file's place is a failure."""
    path = scene.directory / "directory.part"
    path.mkdir()
    return _expect(scene.judge(scene.candidate(path)), Decision.FAILED)


def takes_any_path(scene: Scene) -> str | None:
    """Names with spaces, quotes, other scripts, a line break, and bytes that are no text."""
    for name in _NAMES:
        try:
            candidate = scene.put(scene.examples.good, name)
        except OSError:
            continue  # not every file system takes every name
        problem = _expect(scene.judge(candidate), Decision.ACCEPTED)
        if problem:
            return f"for a file called {name!r}: {problem}"
    return None


def stops_when_told(scene: Scene) -> str | None:
    """With no patience left it may still answer, but nothing wrong."""
    for example, lie in ((scene.examples.good, Decision.REJECTED), (scene.examples.bad, Decision.ACCEPTED)):
        candidate, patience = scene.put(example), _patience()
        patience.withdraw()
        answer = _call(scene.examples.make(), candidate, patience)
        if answer is lie:
            return f"with no patience left, {example.name} was {answer}"
    return None


def works_in_threads(scene: Scene) -> str | None:
    """One validator, asked about both files in several threads at once."""
    good, bad = scene.put(scene.examples.good, "good.part"), scene.put(scene.examples.bad, "bad.part")
    validator = scene.examples.make()
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = list(pool.map(lambda candidate: scene.judge(candidate, validator), [good, bad] * 4))
    for answer, wanted in zip(answers, [Decision.ACCEPTED, Decision.REJECTED] * 4, strict=True):
        problem = _expect(answer, wanted)
        if problem:
            return f"asked from four threads: {problem}"
    return None


def closes_the_file(scene: Scene) -> str | None:
    """No descriptor of the file stays open."""
    for example in (scene.examples.good, scene.examples.bad):
        candidate = scene.put(example)
        validator = scene.examples.make()
        scene.judge(candidate, validator)
        if _is_open_here(candidate.path):
            return f"{example.name} is still open after the verdict"
    return None


CHECKS: dict[str, Callable[[Scene], str | None]] = {
    test.__name__: test
    for test in (
        accepts_good,
        rejects_bad,
        leaves_the_file_alone,
        answers_the_same_twice,
        judges_an_empty_file,
        fails_on_a_missing_file,
        fails_on_a_directory,
        takes_any_path,
        stops_when_told,
        works_in_threads,
        closes_the_file,
    )
}
"""Every test by its name: it is given a Scene and returns what is wrong, or None."""

_NAMES = (
    ".leading dot",
    "-rf",
    "with  spaces and 'quotes\"",
    "ünï-cödé-☃-文件",
    "$(touch injected); *",
    "line\nbreak",
    os.fsdecode(b"no-text-\xff\xfe"),
)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nearfetch-conformance-") as name:
        yield Path(name)


def _patience() -> Patience:
    return Patience(time.monotonic, TIME_LIMIT_S)


def _expect(answer: Verdict, *wanted: Decision) -> str | None:
    if answer.decision in wanted:
        return None
    return f"expected {' or '.join(wanted)}, got {answer.decision} ({answer.reason})"


def _call(validator: Validator, candidate: Candidate, patience: Patience) -> Decision:
    """Past `judge`, which would not even ask when patience is over."""

    class _Asked:
        def validate(self, candidate: Candidate, unused: Patience) -> Verdict:
            return validator.validate(candidate, patience)

    return judge(_Asked(), candidate, _patience()).decision


def _snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything in the directory: identity, mode, size, times, content. Access times may change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[os.fspath(path)] = (status.st_ino, status.st_mode, status.st_uid, status.st_mtime_ns, content)
    return found


def _is_open_here(path: Path) -> bool:
    wanted = path.stat()
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the descriptor of this very listing
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
