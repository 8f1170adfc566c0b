"""The whole product on one machine: the embedded cluster, indexing a folder, asking with a file.

Lives here: what joins client, router, shard and encoder without a socket, and starting the servers as
processes on loopback.
Never lives here: an option, a table, a page; how a search works.
"""

from sish_cluster.local.home import DEFAULT_HOME, encoded_folder, open_home, open_home_async

__all__ = ["DEFAULT_HOME", "encoded_folder", "open_home", "open_home_async"]
