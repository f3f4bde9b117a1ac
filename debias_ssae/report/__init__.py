"""Pages and files for people: the audit's and the benchmark's HTML, markdown, JSON, JUnit."""

from debias_ssae.report.audit_page import audit_html, write_audit_report
from debias_ssae.report.benchmark_page import report_directory, write_benchmark_report
from debias_ssae.report.contexts import top_contexts
from debias_ssae.report.latents_page import latents_html, write_latents_page
from debias_ssae.report.page import write_text
from debias_ssae.report.text_outputs import audit_json, audit_junit, audit_markdown

__all__ = [
    "audit_html",
    "audit_json",
    "audit_junit",
    "audit_markdown",
    "latents_html",
    "report_directory",
    "top_contexts",
    "write_audit_report",
    "write_benchmark_report",
    "write_latents_page",
    "write_text",
]
