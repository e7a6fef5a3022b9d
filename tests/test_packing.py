import pickle

import pytest
import torch

from cellseg.packing import packed

TENSORS = [
    torch.arange(7, dtype=torch.uint8),
    torch.rand(3, 4),
    torch.empty(0, 4),
    torch.tensor(5),
    torch.rand(2, 3, 5).permute(2, 0, 1),
    torch.tensor([True, False, True]),
    torch.arange(6, dtype=torch.int32).reshape(1, 2, 3),
]


def same(mine, theirs):
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_tensors_come_out_as_they_went_in():
    assert same(packed(TENSORS).tensors(), TENSORS)
    assert packed([]).tensors() == []


def test_they_are_views_of_one_buffer_and_copies_of_what_was_packed():
    original = torch.zeros(3)
    whole = packed([torch.zeros(1, dtype=torch.uint8), original])
    whole.tensors()[1].fill_(2)
    assert whole.tensors()[1].tolist() == [2, 2, 2]
    assert original.tolist() == [0, 0, 0]


def test_a_process_and_a_device_get_the_same():
    whole = packed(TENSORS)
    assert same(pickle.loads(pickle.dumps(whole)).tensors(), TENSORS)
    there = whole.to(torch.device("meta")).tensors()
    assert [(each.dtype, each.shape, each.device.type) for each in there] == [
        (each.dtype, each.shape, "meta") for each in TENSORS
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory is pinned for a GPU, and there is none")
def test_pinned_memory_holds_the_same():
    whole = packed(TENSORS).pin_memory()
    assert whole.buffer.is_pinned()
    assert same(whole.tensors(), TENSORS)
