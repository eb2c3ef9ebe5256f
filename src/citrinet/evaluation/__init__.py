"""Evaluate one or several models on a manifest: error rates, tags, entities and speed."""

from ..error_rates import normalize
from .calibration import Calibration, write_temperature
from .evaluate import ModelResult, Report, build_report, evaluate
from .report import format_report, write_report

__all__ = [
    "Calibration",
    "ModelResult",
    "Report",
    "build_report",
    "evaluate",
    "format_report",
    "normalize",
    "write_report",
    "write_temperature",
]
