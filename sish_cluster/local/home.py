"""The embedded cluster: one shard and one router in this process, over a folder.

::

    HOME/shard/     the shard's data directory (one process at a time)
    HOME/encoded/   encoded slides by digest and fingerprint, so that nothing is encoded twice

The calls, the merge and the ranking are those of a cluster of servers; only the sockets are missing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sish_cluster.client import AsyncClient, Client, ClientSettings
from sish_cluster.core.errors import HomeInUse, NotPermitted
from sish_cluster.core.topology import ShardSpec, Topology

if TYPE_CHECKING:
    from sish_cluster.shard.shard import Shard

DEFAULT_HOME = Path("~/.local/share/sish")
"""Where a person's own slides are indexed when nothing is said: the XDG data folder."""

SHARD_NAME = "home"
"""Name of the one shard of an embedded cluster."""


def home_folder(path: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the embedded cluster, made if it is missing.

    Raises
    ------
    NotPermitted
        If it cannot be made.
    """
    folder = Path(path or DEFAULT_HOME).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotPermitted(
            f"cannot make the home folder {folder} ({error.strerror}): give another with --home"
        ) from error
    return folder


def encoded_folder(path: str | os.PathLike[str] | None) -> Path:
    """Return the folder of encoded slides in a home."""
    return home_folder(path) / "encoded"


def open_home(
    path: str | os.PathLike[str] | None = None, *, settings: ClientSettings | None = None
) -> Client:
    """Return a client of the embedded cluster in a folder; close it to let others in.

    Parameters
    ----------
    path
        The home; None for ``~/.local/share/sish``. Made if it is missing.
    settings
        Time-outs and back-pressure.

    Raises
    ------
    HomeInUse
        If another process has it open.

    Examples
    --------
    ::

        with open_home("my-slides") as client:
            print(client.list_collections())
    """
    return Client.over(lambda: open_home_async(path, settings=settings))


async def open_home_async(
    path: str | os.PathLike[str] | None = None, *, settings: ClientSettings | None = None
) -> AsyncClient:
    """Return an asyncio client of the embedded cluster in a folder; see `open_home`."""
    # Imported when a home is opened: a client of a router elsewhere needs no numba and no LMDB.
    from sish_cluster.router.router import Router
    from sish_cluster.shard.direct import DirectShard

    folder = home_folder(path)
    shard = await asyncio.to_thread(_opened_shard, folder)
    spec = ShardSpec(SHARD_NAME, address="")
    router = Router(Topology((spec,)), {SHARD_NAME: DirectShard(shard)})
    router.start_janitor()
    return AsyncClient.over(router, settings=settings)


def _opened_shard(folder: Path) -> Shard:
    from sish_cluster.shard.settings import ShardSettings
    from sish_cluster.shard.shard import Shard
    from sish_cluster.shard.warming import compile_kernels

    compile_kernels()
    try:
        return Shard(ShardSettings(data_dir=folder / "shard", name=SHARD_NAME))
    except HomeInUse as error:
        raise HomeInUse(
            f"the embedded cluster in {folder} is open in process {error.metadata.get('pid', '?')}:"
            " wait for it to end, use another --home, or serve the folder to many with `sish shard"
            f" serve --data-dir {folder / 'shard'}` and `sish router serve`",
            metadata=error.metadata,
        ) from error
