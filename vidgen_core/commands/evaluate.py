"""vidgen evaluate experiment=<name> key=value ...    Make the videos of a comparison, score them, report.

vidgen evaluate videos=<folder> captions=<file> metric=[...] judge=...    Score videos that are there.

The report is a table, results.json, plot.png, and index.html, which shows the videos side by side. The same command
goes on where an earlier one was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidgen_core.evaluation.config import compose_evaluation


def main(arguments: Sequence[str]) -> int:
    """Compose the evaluation, run it, print the table and the files."""
    evaluation = compose_evaluation(arguments)
    from vidgen_core.evaluate import evaluate
    from vidgen_core.evaluation.table import table

    results, files = evaluate(evaluation)
    print(table(results))
    print()
    for file in files:
        print(file)
    return 0
