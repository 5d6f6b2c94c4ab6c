"""Merge the benchmark results into one flat summary, and renew the tables that documents make from it.

Every ``benchmarks/results/<key>.json`` is one case: an object whose member ``figures`` holds the figures (numbers,
possibly nested) and whose other members tell the command, seed, tool versions and date. The summary is
``benchmarks/summary.json``: ``{"<key>.<figure>": number}``, sorted.

A document asks for a table with a pair of comment lines, between which this script writes::

    <!-- table:run cycles,utilization -->
    <!-- /table -->

One row a case whose key begins with ``run.``; the columns are the named figures, or all of them when none is named.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCUMENTS = ("README.md", "docs/*.md")
TABLE = re.compile(r"(?P<open><!-- table:(?P<name>[\w.-]+)(?: +(?P<columns>[\w., -]+?))? *-->\n).*?"
                   r"(?P<close><!-- /table -->)", re.DOTALL)

Figures = dict[str, int | float]


def flatten(figures: dict[str, Any], prefix: str = "") -> Figures:
    """The numeric leaves of a nested object, by dotted name; texts, truth values and nulls are left out."""
    flat: Figures = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[prefix + name] = value
    return flat


def read_results(folder: Path) -> dict[str, Figures]:
    """Figures of each case, by the stem of its file; a file that is no result stops the script with its name."""
    cases: dict[str, Figures] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text())
            cases[path.stem] = flatten(result["figures"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            rule = "an object that has an object 'figures'"
            raise SystemExit(f"{path}: not a benchmark result ({rule}): {error!r}") from None
    return cases


def show(value: int | float | None) -> str:
    """A number for people: thousands separated, four significant digits of a fraction."""
    if value is None:
        return ""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(cases: dict[str, Figures], name: str, columns: list[str]) -> str:
    """A Markdown table of the cases whose key begins with ``name``, or is it."""
    rows = {key: figures for key, figures in cases.items() if key == name or key.startswith(name + ".")}
    if not rows:
        return "(not measured yet)\n"
    columns = columns or list(dict.fromkeys(figure for figures in rows.values() for figure in figures))
    lines = [["case", *columns], ["---", *("---:" for _ in columns)]]
    for key, figures in rows.items():
        lines.append([key.removeprefix(name + "."), *(show(figures.get(column)) for column in columns)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def renew(text: str, cases: dict[str, Figures]) -> str:
    """The document with all its tables made anew."""
    def replacement(match: re.Match[str]) -> str:
        columns = [column.strip() for column in (match["columns"] or "").split(",") if column.strip()]
        return match["open"] + table(cases, match["name"], columns) + match["close"]

    return TABLE.sub(replacement, text)


def main(argv: list[str] | None = None) -> int:
    """Write the summary and the tables; with ``--check`` only tell (exit code 1) whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=HERE.parent, help="root of the repository")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is out of date")
    options = parser.parse_args(argv)
    root: Path = options.root
    cases = read_results(root / "benchmarks" / "results")
    flat = {f"{key}.{figure}": value for key, figures in cases.items() for figure, value in figures.items()}
    wanted = {root / "benchmarks" / "summary.json": json.dumps(flat, indent=2, sort_keys=True) + "\n"}
    for pattern in DOCUMENTS:
        for path in sorted(root.glob(pattern)):
            wanted[path] = renew(path.read_text(), cases)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if options.check else 'written'}: {path.relative_to(root)}")
        if not options.check:
            path.write_text(wanted[path])
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
