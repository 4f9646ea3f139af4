"""HTML report of an evaluation: the pictures of each image, and the page that shows them beside the scores."""

from d2csr.html_report.page import PACKAGES, REPORT_FOLDER, write_page
from d2csr.html_report.pictures import write_pictures

__all__ = ["PACKAGES", "REPORT_FOLDER", "write_page", "write_pictures"]
