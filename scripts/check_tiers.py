"""Fails when a tier of tests is incomplete: it has no test, or skipped one.

Called by `.ci/run` with the JUnit reports of `make test` and `make test-real`. A
tier that skips tests proves nothing, and pytest would report success.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def tally(report: Path) -> Counter[str]:
    """How many test cases of a JUnit report passed, failed and were skipped."""
    counts = Counter(passed=0, failed=0, skipped=0)
    root = ElementTree.parse(report).getroot()  # noqa: S314 our own pytest wrote it a moment ago
    for case in root.iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            counts["failed"] += 1
        elif "skipped" in kinds:
            counts["skipped"] += 1
            print(f"skipped: {case.get('classname')}::{case.get('name')}")
        else:
            counts["passed"] += 1
    return counts


def main(reports: list[str]) -> int:
    total: Counter[str] = Counter(passed=0, failed=0, skipped=0)
    whole = bool(reports)
    for name in reports:
        report = Path(name)
        counts = tally(report) if report.exists() else Counter[str]()
        total.update(counts)
        if not counts["passed"] or counts["failed"] or counts["skipped"]:
            whole = False
            print(f"{report.stem} did not run whole: {dict(counts) or 'there is no report'}")
    print(f"tests: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
