"""Pages and files for people: the audit's and the benchmark's HTML, markdown, JSON, JUnit."""

from debias_ssae.report.audit_page import write_audit_report
from debias_ssae.report.benchmark_page import write_benchmark_report

__all__ = ["write_audit_report", "write_benchmark_report"]
