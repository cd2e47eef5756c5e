"""A gradient check, for the terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxmlp.gradcheck.report import HEADINGS, GradientReport, row

STYLES = {"pass": "green", "fail": "bold red", "kink": "yellow", "cause": "bold", "note": ""}


def report_view(report: GradientReport, when: str) -> Group:
    """A report as a table, a row a leaf, with what is wrong, its likely causes and its notes below."""
    verdict = Text("passed", STYLES["pass"]) if report.passed else Text("FAILED", STYLES["fail"])
    head = Text.assemble(f"{report.dtype}, {when}: ", verdict, f", loss {report.loss:.6g}")
    table = Table(*HEADINGS)
    for leaf in report.leaves:
        *cells, status = row(leaf)
        table.add_row(*cells, Text(status, STYLES[status]))
    remarks = (Text(text, STYLES[kind]) for kind, text in report.remarks)
    return Group(head, *([table] if report.leaves else []), *remarks)
