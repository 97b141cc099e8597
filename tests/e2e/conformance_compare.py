#!/usr/bin/env python3
"""Compares two runs of the MCP conformance suite: straight to a server, and through the gateway.

    conformance_compare.py DIRECT_DIR THROUGH_DIR

Every check must read the same both ways, so that even a check the server itself fails has to
fail through the gateway. Prints each difference, then `84 of 84 checks equal`. Exits 1 on any
difference, on a check only one side has, and when there is nothing to compare. The number
counts checks with a verdict; INFO lines carry none, yet are compared like the rest.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

# One folder per scenario: server-<scenario>-<time it ran>
FOLDER = re.compile(r"^server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")
ABSENT = "absent"


def checks_of(directory: Path) -> dict[tuple, str]:
    """The status of every check; a check that occurs n times in a scenario counts n times."""
    statuses, seen = {}, Counter()
    for file in sorted(directory.glob("server-*/checks.json")):
        match = FOLDER.match(file.parent.name)
        scenario = match["scenario"] if match else file.parent.name
        for check in json.loads(file.read_text()):
            key = (scenario, check["id"], check["name"])
            seen[key] += 1
            statuses[*key, seen[key]] = check["status"]
    return statuses


def label(key: tuple) -> str:
    scenario, check, name, occurrence = key
    return f"{scenario}: {check} ({name})" + (f" #{occurrence}" if occurrence > 1 else "")


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    direct, through = (checks_of(Path(argument)) for argument in sys.argv[1:])
    keys = sorted(direct.keys() | through.keys())
    different = [key for key in keys if direct.get(key) != through.get(key)]
    for key in different:
        print(f"{label(key)}: direct {direct.get(key, ABSENT)}, through {through.get(key, ABSENT)}")

    judged = [key for key in keys if {direct.get(key), through.get(key)} - {None, "INFO"}]
    equal = len(judged) - len(set(judged) & set(different))
    print(f"{equal} of {len(judged)} checks equal")
    return 0 if judged and not different else 1


if __name__ == "__main__":
    sys.exit(main())
