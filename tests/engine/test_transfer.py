"""Arrays arrive on a device as they were sent."""

import numpy as np
import torch

from loraft.engine.transfer import sent


def test_parts_arrive_as_they_were_sent_and_aligned_alike() -> None:
    parts = [np.arange(40).reshape(2, 20), np.array([7]), np.arange(33)]
    moved = sent(torch.device("cpu"), *parts)
    assert [part.tolist() for part in moved] == [part.tolist() for part in parts]
    assert len({part.data_ptr() % 128 for part in moved}) == 1
