"""Fail when a test was skipped that .ci/allowed-skips does not name: check_skips.py ALLOWED REPORT...

A name there may have ``*`` in it, for the tests of a folder that all need the same thing.
"""

import fnmatch
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main() -> int:
    """Print what was skipped; 1 if any of it may not be."""
    lines = Path(sys.argv[1]).read_text().splitlines()
    allowed = {line.split("#")[0].strip() for line in lines} - {""}
    bad = 0
    reports = [ElementTree.parse(report) for report in sys.argv[2:]]
    for case in (case for report in reports for case in report.iter("testcase")):
        skipped = case.find("skipped")
        if skipped is None:
            continue
        name = f"{case.get('classname')}::{case.get('name')}"
        fine = name in allowed or any(fnmatch.fnmatchcase(name, one) for one in allowed if "*" in one)
        bad += not fine
        print(f"{'allowed' if fine else 'NOT ALLOWED'} skip: {name}: {skipped.get('message')}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
