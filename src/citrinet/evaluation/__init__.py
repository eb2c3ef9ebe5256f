"""How well models transcribe: error rates, tags, entities and speed on a manifest, for one model or several."""

try:
    from .evaluate import ModelResult, Report, build_report, evaluate
    from .report import format_report, write_report
    from .scoring import normalize
except ModuleNotFoundError as error:
    if error.name not in ("jinja2", "jiwer", "matplotlib"):
        raise
    raise ImportError(f'evaluation needs the package {error.name}: pip install "citrinet[evaluate]"') from error

__all__ = ["ModelResult", "Report", "build_report", "evaluate", "format_report", "normalize", "write_report"]
