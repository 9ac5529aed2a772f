"""metrics.md, from the metrics' own table."""

from albatros.http.prometheus import METRICS
from scripts.reference.markdown import code, table


def page() -> str:
    """metrics.md."""
    rows = ([code(metric.name), metric.kind, code(metric.label), metric.help] for metric in METRICS)
    return (
        "# Metrics\n\n`GET /metrics` answers in Prometheus' text format. Names and labels stay as they are.\n\n"
        + table(["metric", "kind", "label", "meaning"], rows)
    )
