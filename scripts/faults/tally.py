"""What was tried and what came of it."""

import threading
from collections import Counter
from dataclasses import dataclass, field


# Parts whose subjects are files.
FILES = ("flipped bits", "cut-off files")


@dataclass
class Tally:
    """Cases by part and subject, and the mismatches."""

    cases: dict[tuple[str, str], Counter] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self, part: str, subject: str, verdict: str, problem: str | None = None, times: int = 1
    ) -> None:
        """Counts a case of so many faults that ended in `verdict`, or, with a problem, in a
        mismatch."""
        with self.lock:
            counter = self.cases.setdefault((part, subject), Counter())
            counter["cases"] += times
            counter["mismatch" if problem else verdict] += 1 if problem else times
            if problem:
                self.mismatches.append(f"{part}, {subject}: {problem}")
                print(f"MISMATCH  {self.mismatches[-1]}", flush=True)

    def count(self) -> int:
        return sum(counter["cases"] for counter in self.cases.values())

    def table(self) -> str:
        """As Markdown, a row for each kind of fault and, of kills, each command."""
        rows = ["| fault | cases | of what | outcome | mismatches |", "|---|---|---|---|---|"]
        for part in dict.fromkeys(part for part, _ in self.cases):
            found = {subject: c for (p, subject), c in self.cases.items() if p == part}
            total = sum(found.values(), Counter())
            verdicts = ", ".join(
                f"{count} {verdict}"
                for verdict, count in total.most_common()
                if verdict not in ("cases", "mismatch")
            )
            if part == "kills":
                of = ", ".join(f"{subject} ({c['cases']})" for subject, c in found.items())
            else:
                of = f"{len(found)} {'files' if part in FILES else 'commands'}"
            rows.append(f"| {part} | {total['cases']} | {of} | {verdicts} | {total['mismatch']} |")
        rows += ["", f"{len(self.mismatches)} mismatches in {self.count()} cases."]
        return "\n".join(rows)
