"""Print what each policy of the board earns on each id: `python benchmarks/board.py [ID ...]`.

Mean return and success rate over 200 problems, spread evenly over the id's split; nothing is random. The ceilings
that CI holds are in tests/test_board.py.
"""

import argparse

import textenvs


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", help="registered ids; all when left out")
    ids = parser.parse_args().ids
    print("| id | policy | mean return | success |\n|---|---|---|---|")
    for entry in textenvs.ENTRIES:
        if ids and entry.id not in ids:
            continue
        try:
            rows = textenvs.board(textenvs.Rules(**entry.kwargs))
        except (textenvs.RewardError, ImportError) as error:
            print(f"| `{entry.id}` | not played: {error} | - | - |")
            continue
        for name, row in rows.items():
            print(f"| `{entry.id}` | {name} | {row.mean_return:.3f} | {row.success_rate:.3f} |")


if __name__ == "__main__":
    main()
