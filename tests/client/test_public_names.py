import subprocess
import sys

import sish_cluster


def test_the_public_names_are_these_and_all_are_there():
    assert sish_cluster.__all__ == [
        "AsyncClient",
        "Client",
        "ClientSettings",
        "SishError",
        "open_home",
    ]
    assert all(getattr(sish_cluster, name).__name__ == name for name in sish_cluster.__all__)
    assert not hasattr(sish_cluster, "anything_else")


def test_importing_the_package_loads_nothing_it_does_not_need():
    code = (
        "import sys, sish_cluster; from sish_cluster import Client\n"
        "print(sorted({'torch', 'ray', 'numba', 'lmdb', 'cv2', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
