"""``python -m sish_cluster.cli``: the same as ``sish``."""

from sish_cluster.cli.main import main

if __name__ == "__main__":
    main()
