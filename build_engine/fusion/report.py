"""What each fusion did or refused, and why: the dataclasses behind report.json's `fusion`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Refusal:
    """A place where a rule almost applied. `reason` is one sentence for the model's owner."""

    node: str
    reason: str


@dataclass(frozen=True)
class RuleReport:
    """Outcome of one rule over one graph."""

    applied: int = 0
    refused: tuple[Refusal, ...] = ()

    def __add__(self, other: RuleReport) -> RuleReport:
        """Sum of two passes: applications add up, the refusals of the later pass stand."""
        return RuleReport(self.applied + other.applied, other.refused)


@dataclass
class RuleLog:
    """Collects applications and refusals while a rule walks the graph."""

    applied: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, node_name: str | None, reason: str) -> None:
        """Note that the rule left `node_name` alone."""
        self.refusals.append(Refusal(node_name or "?", reason))

    def report(self) -> RuleReport:
        """What was collected."""
        return RuleReport(self.applied, tuple(self.refusals))
