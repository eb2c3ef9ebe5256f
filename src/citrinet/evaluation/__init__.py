"""How well models transcribe: error rates, tags, entities and speed on a manifest, for one model or several."""

from ..error_rates import normalize
from .evaluate import ModelResult, Report, build_report, evaluate
from .report import format_report, write_report

__all__ = ["ModelResult", "Report", "build_report", "evaluate", "format_report", "normalize", "write_report"]
