"""Batches: every caller gets its own rows, errors stay with their caller, closing leaves nobody waiting."""

import threading

import numpy as np
import pytest

from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.encoder.batching import Batcher
from sish_cluster.encoder.reading import EncodedPatches


class Network:
    """Sums each patch; holds its first batch until told to go on; notes the batches it ran."""

    def __init__(self):
        self.sizes = []
        self.go_on = threading.Event()
        self.began = threading.Event()

    def encode(self, pixels):
        self.sizes.append(len(pixels))
        self.began.set()
        assert self.go_on.wait(10)
        if (pixels == 13).any():
            raise ValueError("unlucky patch")
        sums = pixels.reshape(len(pixels), -1).sum(axis=1)
        return EncodedPatches(sums, pixels[:, :1, 0, 0], pixels[:, :0, 0, 0])


def patch(value, n=1):
    return np.full((n, 2, 2, 3), value, np.uint8)


@pytest.fixture
def network():
    return Network()


def begun(batcher, network, value=1):
    """Submit one patch and wait until its batch runs, so that what follows waits together."""
    first = batcher.submit(patch(value))
    assert network.began.wait(10)
    return first


def test_callers_that_wait_share_a_batch_and_each_gets_its_own_rows(network):
    with Batcher(network.encode, max_patches=4) as batcher:
        first = begun(batcher, network)
        rest = [batcher.submit(patch(value, n)) for value, n in ((2, 1), (3, 2), (4, 1), (5, 3))]
        network.go_on.set()
        assert first.result(10)[0].tolist() == [12]
        assert [future.result(10)[0].tolist() for future in rest] == [
            [24],
            [36, 36],
            [48],
            [60] * 3,
        ]
        assert rest[1].result()[1].tolist() == [[3], [3]]
    assert network.sizes == [1, 4, 3]


def test_a_callers_bad_patch_fails_that_caller_alone(network):
    with Batcher(network.encode, max_patches=8) as batcher:
        first = begun(batcher, network)
        good, bad, also_good = (batcher.submit(patch(value)) for value in (2, 13, 3))
        network.go_on.set()
        assert first.result(10) is not None
        assert good.result(10)[0].tolist() == [24]
        assert also_good.result(10)[0].tolist() == [36]
        with pytest.raises(ValueError, match="unlucky"):
            bad.result(10)


def test_a_cancelled_caller_is_left_out_of_its_batch(network):
    with Batcher(network.encode, max_patches=8) as batcher:
        first = begun(batcher, network)
        unwanted, wanted = batcher.submit(patch(2)), batcher.submit(patch(3))
        assert unwanted.cancel()
        network.go_on.set()
        assert wanted.result(10)[0].tolist() == [36]
        assert first.result(10) is not None
    assert network.sizes == [1, 1]


def test_patches_of_another_side_wait_for_a_batch_of_their_own(network):
    with Batcher(network.encode, max_patches=8) as batcher:
        first = begun(batcher, network)
        large = batcher.submit(np.zeros((1, 4, 4, 3), np.uint8))
        small = batcher.submit(patch(2))
        network.go_on.set()
        assert (large.result(10)[0].tolist(), small.result(10)[0].tolist()) == ([0], [24])
        assert first.result(10) is not None
    assert network.sizes == [1, 1, 1]


def test_closing_fails_whoever_still_waits_and_refuses_whoever_comes(network):
    batcher = Batcher(network.encode, max_patches=1)
    first = begun(batcher, network)
    waiting = batcher.submit(patch(2))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(EncoderUnavailable, match="before the patch's turn"):
        waiting.result(10)
    network.go_on.set()
    closing.join(10)
    assert first.result(10)[0].tolist() == [12]
    with pytest.raises(EncoderUnavailable, match="start it again"):
        batcher.submit(patch(3))


def test_a_batch_that_never_ends_is_given_up_and_those_who_wait_are_served(network):
    with Batcher(network.encode, max_patches=1) as batcher:
        stuck = begun(batcher, network)
        waiting = batcher.submit(patch(2))
        plain, network.go_on = network.go_on, threading.Event()
        network.go_on.set()
        batcher.restart()
        assert waiting.result(10)[0].tolist() == [24]
        assert not stuck.done()
        plain.set()
