"""An analysis as one HTML page that needs nothing else."""

from pyquant.analysis.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
