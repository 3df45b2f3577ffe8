"""A sweep for people to read: sentences, tables, charts and the model card."""

from .comparison import compare_with_threshold
from .html import write_report
from .text import imbalance, rows, sentence, summary, table

__all__ = ["compare_with_threshold", "imbalance", "rows", "sentence", "summary", "table", "write_report"]
