"""What one suite found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Verdict:
    suite: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    """One line each: what was tried, what was expected, what came."""
    expected_failures: int = 0
    """Those that the suite itself marks as not to be relied on."""

    @property
    def good(self) -> bool:
        """A suite that tried nothing proves nothing."""
        return self.passed > 0 and not self.failures

    def sentence(self) -> str:
        return f"{self.suite}: {self.passed} passed, {len(self.failures)} failed, {self.expected_failures} marked by the suite"
