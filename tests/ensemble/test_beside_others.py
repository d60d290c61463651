"""The same members in other libraries: the same mean, and the same uncertainty maps for the same names."""

import pytest
import torch
from ensemble_libraries import BACKBONES, OTHERS, SEGMENTATION, compare, make_members, torch_uncertainty
from ensembles_beside_others import OURS, OURS_WITH_MAPS, peak_in_maps
from torch import Tensor, nn

import densemble as de

NEEDED = {
    "torch-uncertainty": "torch_uncertainty.metrics",
    "pytorch-toolbelt": "pytorch_toolbelt.inference",
    "MONAI": "monai.transforms",
}
SIZE = (48, 64)


def need(library: str) -> None:
    reason = f"{library} is not installed: pip install -c constraints.txt -e '.[bench]'"
    pytest.importorskip(NEEDED[library], reason=reason, exc_type=ImportError)


@pytest.mark.parametrize("library", OTHERS)
def test_maps_of_the_same_name_are_equal(library: str) -> None:
    need(library)
    torch.manual_seed(0)
    rows = compare(library, torch.rand(2, 3, *SIZE))
    assert [row for row in rows if not row.holds] == []
    assert {row.theirs for row in rows} > {"mean, segmentation", "mean, saliency"}


def test_the_mean_is_the_one_that_torch_uncertainty_scores() -> None:
    need("torch-uncertainty")
    from torch_uncertainty.methods import deep_ensembles
    from torch_uncertainty.routines import SegmentationRoutine

    class Seen(nn.Module):
        def update(self, probabilities: Tensor, targets: Tensor, ignore_mask: Tensor) -> None:
            self.probabilities = probabilities

    members = make_members(SEGMENTATION, SIZE)
    images, labels = torch.rand(2, 3, *SIZE), torch.zeros(2, *SIZE, dtype=torch.int64)
    routine = SegmentationRoutine(deep_ensembles(members, task="segmentation"), SEGMENTATION.out_channels)
    routine.val_seg_metrics = routine.val_sbsmpl_seg_metrics = Seen()
    with torch.no_grad():
        routine.eval().validation_step((images, labels))
        scored = routine.val_seg_metrics.probabilities
        assert torch.equal(scored, torch_uncertainty(members, SEGMENTATION)(images))
        torch.testing.assert_close(de.Ensemble(members, task=SEGMENTATION)(images), scored, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", [OURS, OURS_WITH_MAPS])
def test_memory_does_not_grow_with_the_members(method: str) -> None:
    with torch.no_grad():
        assert peak_in_maps(method, 3, SIZE) == peak_in_maps(method, 6, SIZE)


@pytest.mark.parametrize("library", OTHERS)
def test_memory_grows_with_the_members_where_they_are_stacked(library: str) -> None:
    need(library)
    with torch.no_grad():
        assert peak_in_maps(library, 6, SIZE) - peak_in_maps(library, 3, SIZE) == pytest.approx(2 * 3, abs=0.1)


@pytest.mark.slow
def test_members_are_of_different_architectures_and_disagree() -> None:
    images = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        labels = torch.stack([member(images).argmax(1) for member in make_members(SEGMENTATION, SIZE)])
    assert len(set(BACKBONES)) == len(labels) == 3
    assert all(len(label_map.unique()) > SEGMENTATION.out_channels // 2 for label_map in labels)
    assert (labels != labels[0]).any(0).float().mean() > 0.5
