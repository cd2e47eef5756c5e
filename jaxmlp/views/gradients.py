"""A gradient check, for the terminal."""

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxmlp.gradcheck.report import HEADINGS, GradientReport, row

STYLES = {"pass": "green", "fail": "bold red", "kink": "yellow", "cause": "bold", "note": ""}


WIDTH = 132
"""Columns that the coloured table needs, for every figure to stand in full."""


def show_report(console: Console, report: GradientReport, when: str) -> None:
    """Prints the coloured table on a terminal that is wide enough, plain lines elsewhere."""
    if console.is_terminal and console.width >= WIDTH:
        console.print(report_view(report, when))
    else:
        console.print(f"{when}: {report.text}", soft_wrap=True, highlight=False, markup=False)


def report_view(report: GradientReport, when: str) -> Group:
    """A report as a table, a row a leaf, with what is wrong, its likely causes and its notes below."""
    verdict = Text("passed", STYLES["pass"]) if report.passed else Text("FAILED", STYLES["fail"])
    head = Text.assemble(f"{when}: ", verdict, f", loss {report.loss:.6g}, {report.precision}")
    table = Table(*HEADINGS)
    for leaf in report.leaves:
        *cells, status = row(leaf)
        table.add_row(*cells, Text(status, STYLES[status]))
    remarks = (Text(text, STYLES[kind]) for kind, text in report.remarks)
    return Group(head, *([table] if report.leaves else []), *remarks)
