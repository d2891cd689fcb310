"""What an export wrote, and what of the bundle it could not take along."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from fcnedge.runtime.command import table


@dataclass(frozen=True)
class ExportResult:
    """One export.

    output: what was written, None when nothing was; files: below it, in order; graph: the bundle's file that it was
    made of; commands: lines for a shell, by TensorRT release; not_carried: one sentence per thing that stayed behind;
    dry_run: nothing was written, all is as it would be.
    """

    kind: str
    bundle: str
    precision: str
    graph: str
    output: str | None = None
    files: tuple[str, ...] = ()
    commands: dict[str, str] | None = None
    not_carried: tuple[str, ...] = ()
    dry_run: bool = False

    def text(self) -> str:
        """The result as text: a table or commands, then what was not carried over."""
        left = "\n".join(f"  - {sentence}" for sentence in self.not_carried)
        notes = [f"not carried over:\n{left}"] if self.not_carried else []
        if self.commands is not None:
            lines = [f"# TensorRT {version}\n{command}" for version, command in self.commands.items()]
            return "\n\n".join([*lines, *notes])
        rows = [("would write" if self.dry_run else "written", self.output), ("from", f"{self.graph} of {self.bundle}")]
        rows += [("files", ", ".join(self.files))] if self.files else []
        return "\n".join([table(rows), *notes])


def readme(title: str, how: str, not_carried: tuple[str, ...]) -> str:
    """README.txt of an exported folder."""
    left = "\n".join(
        textwrap.fill(sentence, 100, initial_indent="- ", subsequent_indent="  ") for sentence in not_carried
    )
    return f"{title}\n\n{textwrap.fill(' '.join(how.split()), 100)}\n\nNot carried over\n\n{left}\n"
