"""What a program uses to talk to a cluster: `Client`, `AsyncClient`, and the text of filters.

Lives here: typed calls with a time-out each, retries, back-pressure, the words of ``--where``.
Never lives here: how a search or an ingest works, pixels, torch.
"""

from sish_cluster.client.asking import case_query, case_sources
from sish_cluster.client.asynchronous import AsyncClient
from sish_cluster.client.blocking import Client
from sish_cluster.client.encoder import EncoderClient, EncoderDescription
from sish_cluster.client.encoder_differences import check_encoder
from sish_cluster.client.filters import Exclusion, filter_of, parsed_filter
from sish_cluster.client.outcome import SlideOutcome
from sish_cluster.client.settings import ClientSettings
from sish_cluster.client.unknown_labels import unknown_in_filter, unknown_label

__all__ = [
    "AsyncClient",
    "Client",
    "ClientSettings",
    "EncoderClient",
    "EncoderDescription",
    "Exclusion",
    "SlideOutcome",
    "case_query",
    "case_sources",
    "check_encoder",
    "filter_of",
    "parsed_filter",
    "unknown_in_filter",
    "unknown_label",
]
