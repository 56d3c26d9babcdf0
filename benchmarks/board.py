"""Print what each policy of the board earns on each id, and store the anchors: `python benchmarks/board.py [ID ...]`.

Mean return and success rate over 200 problems, spread evenly over the id's split; nothing is random. The best of the
dumb policies is bold. The ids' rows in textenvs/assets/anchors.csv, which `textenvs list` prints, are written again; an
id that cannot be played here keeps its row. tests/test_board.py holds the ceilings, and the file against a fresh run.
"""

import argparse
import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import textenvs
from textenvs.anchors import NEEDS_ANSWER, Played

ASSETS = Path(textenvs.__file__).parent / "assets"


def store(known: Mapping[str, textenvs.Anchors]) -> None:
    """Write anchors.csv and its row in manifest.json."""
    file = io.StringIO()
    names = [field.name for field in fields(textenvs.Anchors)]
    writer = csv.DictWriter(file, ["id", *names], lineterminator="\n")
    writer.writeheader()
    for env_id, anchors in known.items():
        values = {name: None if value is None else round(value, 6) for name, value in vars(anchors).items()}
        writer.writerow({"id": env_id, **values})
    content = file.getvalue().encode()
    (ASSETS / "anchors.csv").write_bytes(content)
    manifest = json.loads((ASSETS / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["anchors.csv"] = {
        "bytes": len(content),
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256(content).hexdigest(),
        "source": "measured by benchmarks/board.py",
    }
    (ASSETS / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def print_rows(env_id: str, rows: Mapping[str, Played]) -> None:
    """A Markdown row a policy, the best dumb one bold."""
    best = max((name for name in rows if name not in NEEDS_ANSWER), key=lambda name: rows[name].mean_return)
    for name, row in rows.items():
        shown = f"**{name}**" if name == best else name
        print(f"| `{env_id}` | {shown} | {row.mean_return:.3f} | {row.success_rate:.3f} |", flush=True)


def main() -> None:
    """Print a Markdown table; store the anchors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", help="registered ids; all when left out")
    ids = parser.parse_args().ids
    known: dict[str, textenvs.Anchors | None] = {}
    print("| id | policy | mean return | success |\n|---|---|---|---|")
    for entry in textenvs.ENTRIES:
        known[entry.id] = textenvs.Anchors.stored(entry.id)
        if ids and entry.id not in ids:
            continue
        try:
            rules = textenvs.Rules(**entry.kwargs)
            rows = textenvs.board(rules)
        except (textenvs.RewardError, ImportError) as error:
            print(f"| `{entry.id}` | not played: {error} | - | - |")
            continue
        print_rows(entry.id, rows)
        known[entry.id] = textenvs.anchors(rules, rows)
    store({env_id: anchors for env_id, anchors in known.items() if anchors is not None})


if __name__ == "__main__":
    main()
