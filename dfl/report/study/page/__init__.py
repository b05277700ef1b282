"""The page of a study: one HTML file that needs no network and no script to be read."""

from dfl.report.study.page.render import study_html, write_study_page

__all__ = ["study_html", "write_study_page"]
