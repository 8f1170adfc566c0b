"""One page that shows why: the slides, the boxes, the pairs of patches, side by side.

Lives here: pictures cut from slide files, and the self-contained HTML page.
Never lives here: searching, or anything that changes a result.
"""

from sish_cluster.report.model import QueryPart, Searched
from sish_cluster.report.page import ReportSettings, written_report
from sish_cluster.report.pictures import SlideFile, SlideFiles

__all__ = ["QueryPart", "ReportSettings", "Searched", "SlideFile", "SlideFiles", "written_report"]
