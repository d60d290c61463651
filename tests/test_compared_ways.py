"""Alternatives that the benchmarks compare with: they compute correct results, and partial runs keep other results."""

from argparse import Namespace
from pathlib import Path

import compare_peers
import every_head
import pytest
import torch
from compare_peers import DECODERS, OURS, WORKS, Padded, merged, summarize
from ensemble_libraries import PYTORCH, SEGMENTATION
from torch import nn

import densemble as de


@pytest.fixture(scope="module")
def members() -> list[de.DenseModel]:
    torch.manual_seed(0)
    return [
        de.DenseModel("resdeconv", weights=None, out_channels=SEGMENTATION.out_channels, out_size=(16, 24)).eval()
        for _ in range(2)
    ]


@pytest.mark.parametrize(("variant", "within"), zip(PYTORCH, (1e-5, 0.05), strict=True))
def test_pytorch_variants_give_the_mean_of_the_members(
    variant: str, within: float, members: list[de.DenseModel]
) -> None:
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        expected = (members[0](images).softmax(1) + members[1](images).softmax(1)) / 2
        result = PYTORCH[variant](members, SEGMENTATION)(images)
    assert result.dtype == torch.float32 and result.shape == expected.shape
    assert float((result - expected).abs().max()) <= within
    assert all(p.is_contiguous() for member in members for p in member.parameters()), "the members were changed"


def test_padded_network_gets_multiples_of_32_and_returns_the_image_size() -> None:
    seen = []

    class Identity(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape[-2:]))
            return images

    images = torch.rand(1, 3, 225, 301)
    assert torch.equal(Padded(Identity())(images), images)
    assert seen == [(256, 320)]


def test_new_measurements_replace_old_rows_and_add_rows() -> None:
    def row(head: str, outcome: str, commit: str) -> dict[str, str]:
        where = {"system": OURS, "head": head, "backbone": "resnet18", "size": "8x8"}
        return {**where, "outcome": outcome, "commit": commit}

    before = [row("skip", "fails", "old"), row("aspp", "fails", "old")]
    (line,) = summarize(merged(before, [row("skip", WORKS, "new"), row("fpn", WORKS, "new")]))
    assert (line["works"], line["total"], line["heads"], line["commits"]) == (2, 3, 3, ["new", "old"])
    assert line["failed"] == {"resnet18": {"fails": ["aspp"]}}


def test_combinations_match_heads_to_systems() -> None:
    rows = list(compare_peers.combinations(["alexnet"], [(8, 8)], [OURS, DECODERS]))
    assert [row.head for row in rows if row.system == DECODERS] == [h for h in every_head.HEADS if h.startswith("smp-")]
    assert {row.head for row in rows} == set(every_head.HEADS) and len(rows) == len(every_head.HEADS)


def test_new_measurements_of_one_head_keep_the_others(tmp_path: Path) -> None:
    out = tmp_path / "every_head.json"
    out.write_text(
        '{"commit": "old", "failed": ["skip x a, 1x1 -> 1x1: bad", "fpn x a, 1x1 -> 1x1: bad"],'
        ' "working sizes of each": {"skip x a": 11, "fpn x a": 11, "smp-unet x a": 12}}'
    )
    result = every_head.with_earlier({"fpn x a": 12}, [], Namespace(heads=["fpn"], out=out))
    assert result["failed"] == ["skip x a, 1x1 -> 1x1: bad"]
    assert result["of each kind"]["own heads"] == {"heads": 2, "combinations": 24, "work": 23}
    assert result["of each kind"]["decoders of smp"] == {"heads": 1, "combinations": 12, "work": 12}
    assert result["commits"]["skip"] == "old" and result["commits"]["fpn"] != "old"
