"""A copy of the product to break: the tree one works in is never touched."""

import compileall
import contextlib
import os
import py_compile
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.mutants.mutant import DoesNotApplyError, Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("analytics", "audit", "chassis", "contracts", "gateway", "link_service", "linkmesh", "webhook", "writer")
_COPIED = (*PACKAGES, "protos/gen", "tests")
_NEVER = shutil.ignore_patterns("__pycache__", ".hypothesis", "node_modules")


class WorkingCopy:
    """The packages and their tests in a folder of their own, to be run from there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def made_in(cls, folder: Path) -> "WorkingCopy":
        """Copies today's tree, committed or not."""
        for name in _COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=_NEVER)
        shutil.copy(ROOT / "pyproject.toml", folder)
        # Compiled files are told stale by their source's hash: by its time and size a quick edit could go unseen.
        compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        return cls(folder)

    def copied_to(self, folder: Path) -> "WorkingCopy":
        """Another one, with what is compiled already."""
        shutil.copytree(self.folder, folder)
        return WorkingCopy(folder)

    def environment(self) -> Mapping[str, str]:
        """What a process needs to import this copy and nothing else, also one that a test starts."""
        path = os.pathsep.join(str(self.folder / name) for name in ("", "protos/gen"))
        return {**os.environ, "PYTHONPATH": path}

    @contextlib.contextmanager
    def broken_by(self, mutant: Mutant) -> Iterator[None]:
        """The copy with this mutant's edits, until the end of the block.

        Raises:
            DoesNotApplyError: one of the edits does not fit, and none was made.
        """
        before = {self.folder / edit.file: "" for edit in mutant.edits}
        for path in before:
            before[path] = path.read_text("utf-8")
        after = edited(mutant, {edit.file: before[self.folder / edit.file] for edit in mutant.edits})
        try:
            for name, text in after.items():
                (self.folder / name).write_text(text, "utf-8")
            yield
        finally:
            for path, text in before.items():
                path.write_text(text, "utf-8")


def edited(mutant: Mutant, texts: Mapping[str, str]) -> Mapping[str, str]:
    """The files of a mutant after all of its edits.

    Raises:
        DoesNotApplyError: one of them does not fit, or makes no Python any more.
    """
    after = dict(texts)
    for edit in mutant.edits:
        after[edit.file] = edit.applied_to(after[edit.file])
    for name, text in after.items():
        if name.endswith(".py"):
            try:
                compile(text, name, "exec")
            except SyntaxError as error:
                raise DoesNotApplyError(f"{name} is no Python any more, line {error.lineno}: {error.msg}") from error
    return after
