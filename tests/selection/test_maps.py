"""Sampled pixels and maps computed from stored logits equal the served maps exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densemble.selection.map_sources import SampledMaps, ServedMaps, StoredMaps, sample_pixels
from densemble.storage.tensor_file import TensorFile
from densemble.tasks import MultilabelTask, SegmentationTask


def file(folder: Path, name: str, tensor: torch.Tensor, dtype: str = "float32") -> TensorFile:
    result = TensorFile(folder / name, dtype)
    result.append(7, tensor)
    return result


def test_tensors_are_read_by_key(tmp_path: Path) -> None:
    result = TensorFile(tmp_path / "t.bin")
    tensors = {key: torch.randn(*shape) for key, shape in ((5, (2, 3)), (1, (4,)), (9, (1, 2, 2)))}
    for key, tensor in tensors.items():
        result.append(key, tensor)
    for key in (9, 5, 1, 5):
        assert torch.equal(result.read(key), tensors[key])
    assert 5 in result and 2 not in result
    with pytest.raises(KeyError):
        result.read(2)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("own", "size"), [((6, 8), (6, 8)), ((6, 8), (13, 17)), ((12, 16), (5, 7)), ((1, 1), (3, 4))])
@pytest.mark.parametrize("task", [SegmentationTask(("a", "b", "c")), MultilabelTask(("a", "b", "c"))])
def test_sampled_pixels_equal_the_served_map(
    task: SegmentationTask | MultilabelTask, own: tuple[int, int], size: tuple[int, int], temperature: float,
    tmp_path: Path,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    coarse = 3 * torch.randn(3, 4, 5)
    logits = F.interpolate(coarse[None], size=own, mode="bilinear")
    maps = (
        torch.softmax(logits / temperature, 1) if task.name == "segmentation" else torch.sigmoid(logits / temperature)
    )
    served = ServedMaps(file(tmp_path, "logits", coarse), {7: own}, task)
    torch.testing.assert_close(served.read(7, temperature), maps[0])
    known = torch.rand(size) < 0.7
    pixels = sample_pixels(known, own, 7, max_pixels=9)
    values = logits[0].flatten(1)[:, pixels.sources]
    result = SampledMaps(file(tmp_path, "pixels", values), {7: pixels}, task).read(7, temperature)
    target = torch.arange(size[0] * size[1]).view(size)
    indices = pixels.of_target(target)[:, 0]
    assert known.flatten()[indices].all() and len(indices) == len(indices.unique()) == min(9, int(known.sum()))
    whole = F.interpolate(maps, size=size, mode="bilinear")[0].flatten(1)
    torch.testing.assert_close(result[..., 0], whole[:, indices])


def test_samples_are_reproducible_and_uniform() -> None:
    known = torch.ones(20, 30, dtype=torch.bool)
    assert torch.equal(sample_pixels(known, (20, 30), 3, 50).target, sample_pixels(known, (20, 30), 3, 50).target)
    counts = np.zeros(600)
    for image in range(400):
        counts[sample_pixels(known, (20, 30), image, 50).target.numpy()] += 1
    # Each pixel is drawn with probability 1/12: 33.3 of 400 times, standard deviation 5.5.
    assert counts.sum() == 400 * 50 and abs(counts - 400 / 12).max() < 5 * 5.6


def test_stored_maps_cannot_be_tempered_again(tmp_path: Path) -> None:
    maps = torch.tensor([[[0.25]], [[0.75]]])
    stored = StoredMaps(file(tmp_path, "maps", maps, "float16"))
    assert torch.equal(stored.read(7, 1.0), maps)
    with pytest.raises(ValueError, match="tempered already"):
        stored.read(7, 2.0)
