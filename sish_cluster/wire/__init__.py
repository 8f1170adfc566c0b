"""The only place where values become messages and errors become gRPC statuses.

Lives here: the generated code of ``protos/``, the packing of values, the mapping of errors, channels,
interceptors, and how a server starts, reports its health and drains.
Never lives here: what a search or an ingest means.
"""

import os

# Ray forks this process while gRPC's threads run; gRPC's own fork handlers cannot work then, and only
# print a warning for every fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
