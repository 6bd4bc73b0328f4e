"""Finds the rows of tables in which a value is outside its limits."""

import csv
import json
import sys
from pathlib import Path

INPUT, OUTPUT = Path("/input"), Path("/output")


def main() -> None:
    try:
        limits = json.loads((INPUT / "limits.json").read_text())
    except FileNotFoundError:
        sys.exit('The zip needs a limits.json such as {"heart_rate": [50, 120]}')
    summary = {}
    for table in sorted(INPUT.rglob("*.csv")):
        name = table.relative_to(INPUT)
        summary[str(name)] = check(table, OUTPUT / name, limits)
        print(f"{name}: {summary[str(name)]['outside']} of {summary[str(name)]['rows']} rows are outside")
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=2))


def check(table: Path, found: Path, limits: dict[str, list[float]]) -> dict[str, int]:
    """Writes the rows that are outside, each with the columns that are, to `found`."""
    count = {"rows": 0, "outside": 0}
    found.parent.mkdir(parents=True, exist_ok=True)
    with table.open(newline="") as source, found.open("w", newline="") as target:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, [*(rows.fieldnames or []), "outside"])
        writer.writeheader()
        for row in rows:
            try:
                outside = [
                    name for name, (low, high) in limits.items() if name in row and not low <= float(row[name]) <= high
                ]
            except ValueError:  # what stands there may be a patient's data, and logs are no place for that
                sys.exit(f"{table.name}, line {rows.line_num}: a value that has limits is not a number")
            count["rows"] += 1
            if outside:
                count["outside"] += 1
                writer.writerow({**row, "outside": " ".join(outside)})
    return count


if __name__ == "__main__":
    main()
