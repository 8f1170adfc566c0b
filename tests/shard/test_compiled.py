"""Kernels are compiled once a machine, however many processes start at the same time."""

import os
import subprocess
import sys

PROGRAM = """
import time
from sish_cluster.shard import compiled
with compiled.compiled_once():
    was_compiled = compiled.is_compiled()
    time.sleep(0.3)
    print(int(was_compiled))
print(int(compiled.is_compiled()))
"""


def test_of_several_processes_one_compiles_while_the_others_wait(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in started]
    assert sorted(was_compiled for was_compiled, _ in said) == ["0", "1", "1"]
    assert [after for _, after in said] == ["1", "1", "1"]
