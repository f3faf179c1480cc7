"""Prints the JSON lines of `sora bench agree` as a table; exit status 1 if a case differs or failed.

    python3 scripts/gpu/agreement.py FILE
"""

import json
import sys


def number(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        cases = [case for case in map(json.loads, file) if case["kind"] == "agreement"]
    print("| case | result | closest figure | cpu | device | off | allowed | s |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases:
        why = case.get("reason")
        result = case["result"] + (f": {why}" if why else "")
        cells = [case.get(key, "") for key in ("figure", "cpu", "on_device", "off", "allowed")]
        seconds = f"{case['seconds']:.1f}" if "seconds" in case else ""
        print("| " + " | ".join([case["case"], result, *map(number, cells), seconds]) + " |")
    count = {}
    for case in cases:
        count[case["result"]] = count.get(case["result"], 0) + 1
    print(", ".join(f"{n} {word}" for word, n in sorted(count.items())))
    sys.exit(any(case["result"] in ("differs", "failed") for case in cases))


if __name__ == "__main__":
    main()
