"""HeldOut reads the same values from memory and from mapped files, and does not change files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_heldout import TASKS, arrays, small_set

from densemble.selection.held_out_predictions import HeldOut, held_out


def mapped(held: HeldOut, folder: Path, mode: str) -> HeldOut:
    kept = []
    for name, maps in zip(held.names, arrays(held), strict=True):
        np.save(folder / f"{name}.npy", maps)
        kept.append(np.load(folder / f"{name}.npy", mmap_mode=mode))
    return held_out(held.names, kept, held.targets, held.task)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files_equal_arrays_in_memory(tmp_path: Path, mode: str) -> None:
    held = small_set(TASKS["miou"], (1.0, 2.0))
    result = mapped(held, tmp_path, mode)
    for _ in range(2):
        for (maps, target), (expected, _) in zip(result, held, strict=True):
            assert maps.dtype == torch.float32
            assert torch.equal(maps, expected)
            assert target is held.targets[[t is target for t in held.targets].index(True)]


def test_changes_of_a_copy_on_write_map_stay(tmp_path: Path) -> None:
    result = mapped(small_set(TASKS["mae"], (1.0,)), tmp_path, "c")
    arrays(result)[0][2] = 7
    result.read(2)
    assert (result.read(2) == 7).all()


def test_a_part_of_a_mapped_file_is_read_at_its_offset(tmp_path: Path) -> None:
    held = small_set(TASKS["mae"], (1.0,))
    whole = mapped(held, tmp_path, "r")
    part = held_out(held.names, [arrays(whole)[0][3:]], held.targets[3:], held.task)
    assert torch.equal(part.read(0), held.read(3))


def test_candidates_and_images_keep_the_requested_order() -> None:
    held = small_set(TASKS["miou"], (1.0, 2.0, 3.0)).tempered((1.0, 2.0, 3.0))
    some = held.of(("member2", "member0")).only((4, 1))
    assert some.temperatures == (3, 1)
    assert len(some) == 2
    for (maps, _), image in zip(some, (4, 1), strict=True):
        assert torch.equal(maps, held.read(image)[[2, 0]])


def test_different_shapes_raise() -> None:
    held = small_set(TASKS["mae"], (1.0, 2.0))
    with pytest.raises(ValueError, match="different shapes"):
        held_out(held.names, [arrays(held)[0], arrays(held)[1][:, :, :3]], held.targets, held.task)
    with pytest.raises(ValueError, match="5 targets for 6 images"):
        held_out(held.names, arrays(held), held.targets[:5], held.task)
