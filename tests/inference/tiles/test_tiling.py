"""Tiles against the whole image: plans by brute force, stitching as an identity, streams against plain prediction."""

import itertools
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import densemble as de
from densemble.ensemble.calibrate import VectorScaling
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, RiskControl
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ArtifactError, DataError, UsageError
from densemble.inference.image_prediction import at_image_size
from densemble.inference.tiles.planes import Rows
from densemble.inference.tiles.resize_blocks import antialiased_weights, blocks, reduce_image, upsample_box
from densemble.inference.tiles.stitch import stitch
from densemble.inference.tiles.streaming import plan_windows, stream
from densemble.inference.tiles.tile_members import measure_reaches
from densemble.inference.tiles.windows import Box, Windows, plan
from densemble.nets.halo import Halo, Reach
from densemble.shapes import Size
from densemble.tasks import make_task

# --- plans ----------------------------------------------------------------------------------------------------------

SIZES: list[Size] = [(1, 1), (1, 500), (63, 64), (64, 65), (97, 250), (128, 96), (301, 129), (512, 256)]


def answered(windows: Windows) -> Tensor:
    """Sum of all weights at every pixel of the padded image, one window after the other."""
    total = torch.zeros(windows.rows.padded, windows.columns.padded, dtype=torch.float64)
    for (i, (top, bottom)), (j, (left, right)) in itertools.product(
        enumerate(windows.rows.outputs), enumerate(windows.columns.outputs)
    ):
        total[top:bottom, left:right] += torch.outer(windows.rows.weights[i], windows.columns.weights[j])
    return total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("halo", [(0, 0, 0, 0), (16, 8, 8, 16), (24, 24, 0, 0)])
@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_every_pixel_is_in_one_output_box(
    size: Size, halo: tuple[int, int, int, int], stride: int, overlap: float
) -> None:
    windows = plan(size, 64, halo, stride, overlap)
    torch.testing.assert_close(answered(windows), torch.ones_like(answered(windows)), atol=1e-6, rtol=0)
    assert len({(box.height, box.width) for box in windows.input_boxes()}) == 1
    for axis, length, (before, after) in zip((windows.rows, windows.columns), size, (halo[:2], halo[2:]), strict=True):
        assert axis.padded - length < stride and axis.starts[0] == 0 and axis.starts[-1] + axis.window == axis.padded
        for start, (first, end) in zip(axis.starts, axis.outputs, strict=True):
            assert first == 0 or (start % stride == 0 and first >= start + before)
            assert end == axis.padded or (end <= start + axis.window - after)
        if len(axis.starts) > 1:
            assert axis.window % stride == 0
            assert all(b - a <= axis.window * (1 - overlap) + 1e-9 for a, b in itertools.pairwise(axis.starts))


@pytest.mark.parametrize("length", [100, 128, 129, 144, 200, 256, 300, 1000, 1024, 4096])
def test_work_is_limited_by_the_halo(length: int) -> None:
    halo = Halo(4, (8, 4, 8, 4))
    axis = plan((length, length), 64, halo.pixels, 4).rows
    assert len(axis.starts) * axis.window <= (length + 4 * len(axis.starts)) * (halo.work(64) ** 0.5)
    if length % 64 == 0:
        assert axis.window == 76  # images without a rest share one shape


def test_plan_by_hand() -> None:
    """200 pixels in tiles of 64 with 8 around: windows of 80 leave 16 + 2 * 64 = 144, so three of them, of which
    (200 + 2 * 16) / 3 = 77.3, 80 at stride 8, are enough; they begin at 0, 60 and 120, at multiples of 8."""
    axis = plan((200, 1), 64, (8, 8, 0, 0), 8).rows
    assert (axis.window, axis.starts) == (80, (0, 56, 120))
    assert axis.outputs == ((0, 68), (68, 128), (128, 200))


def test_gaussian_is_an_eighth_of_the_window() -> None:
    axis = plan((1000, 1), 400, overlap=0.5).rows
    assert axis.starts == (0, 200, 400, 600)
    pixel = 250
    bells = [np.exp(-0.5 * ((pixel - start - 199.5) / 50) ** 2) for start in (0, 200)]
    assert float(axis.weights[0][pixel]) == pytest.approx(bells[0] / sum(bells), rel=1e-6)


@pytest.mark.parametrize(
    ("tile", "halo", "overlap", "message"),
    [(64, 0, 0.9, "overlap"), (0, 0, 0.0, "one pixel"), (64, 32, 0.25, "all halo")],
)
def test_impossible_plans(tile: int, halo: int, overlap: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan((500, 500), tile, (halo, halo, halo, halo), 8, overlap)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_stitching_an_identity_returns_the_image(size: Size, overlap: float) -> None:
    windows = plan(size, 48, (8, 0, 4, 4), 4, overlap)
    padded = torch.rand(2, windows.rows.padded, windows.columns.padded)
    crops = (padded[:, b.top : b.top + b.height, b.left : b.left + b.width] for b in windows.output_boxes())
    rows = list(stitch(windows, ({"mean": crop} for crop in crops), lambda planes: planes))
    tops = [top for top, _ in rows]
    result = torch.cat([planes["mean"] for _, planes in rows], dim=1)
    assert tops == sorted(set(tops)) and tops[0] == 0
    assert [b - a for a, b in itertools.pairwise(tops)] == [planes["mean"].shape[1] for _, planes in rows[:-1]]
    torch.testing.assert_close(result, padded[:, : size[0], : size[1]], atol=1e-6 if overlap else 0, rtol=0)


# --- resizing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "wanted"), [((301, 207), (48, 64)), ((90, 64), (48, 64)), ((7, 1), (16, 9))])
def test_downsampling_by_blocks_equals_downsampling_at_once(
    size: Size, wanted: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densemble.inference.tiles.resize_blocks.BLOCK", 50)
    image = torch.rand(3, *size)
    sizes = {wanted, (5, 11), size}
    assert len(list(blocks(size))) == -(-size[0] // 50) * -(-size[1] // 50)
    result = reduce_image(lambda b: image[:, b.top : b.top + b.height, b.left : b.left + b.width], size, 3, sizes)
    for one in sizes:
        whole = F.interpolate(image[None], size=one, mode="bilinear", align_corners=False, antialias=True)
        torch.testing.assert_close(result[one], whole, atol=1e-5, rtol=0)


def test_weights_of_a_long_axis_sum_to_one() -> None:
    total = torch.zeros(192)
    for start in range(0, 32768, 1024):
        first, weights = antialiased_weights(32768, 192, start, start + 1024)
        total[first : first + len(weights)] += weights.sum(1)
    torch.testing.assert_close(total, torch.ones(192))


@pytest.mark.parametrize(("small", "size"), [((6, 8), (100, 123)), ((48, 64), (50, 37)), ((1, 1), (5, 9))])
def test_an_upsampled_box_is_a_part_of_the_upsampled_map(small: Size, size: Size) -> None:
    maps = torch.rand(2, 3, *small)
    whole = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    for top, left, height, width in ((0, 0, *size), (size[0] // 3, size[1] // 2, 2, 3), (size[0] - 1, 0, 1, 4)):
        box = Box(top, left, height, width)
        torch.testing.assert_close(
            upsample_box(maps, size, box), whole[..., top : top + height, left : left + width], atol=1e-5, rtol=0
        )


# --- streams --------------------------------------------------------------------------------------------------------


class Image:
    """An image in memory that is read like a large one; remembers what was read, and by whom."""

    def __init__(self, size: Size, channels: int = 3) -> None:
        self.size, self.channels = size, channels
        low = torch.rand(1, channels, -(-size[0] // 9), -(-size[1] // 9))
        smooth = F.interpolate(low, size=size, mode="bilinear")[0] + 0.3 * torch.rand(channels, *size)
        self.pixels = (smooth / 1.3 * 255).round().byte().permute(1, 2, 0).numpy()
        self.reads: list[tuple[int, int, int, int]] = []
        self.readers: set[int] = set()

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        assert top >= 0 and left >= 0 and top + height <= self.size[0] and left + width <= self.size[1]
        self.reads.append((top, left, height, width))
        self.readers.add(threading.get_ident())
        return self.pixels[top : top + height, left : left + width]

    def images(self, padded: Size | None = None) -> Tensor:
        """The whole as a batch of one, continued with its edge values."""
        rows, columns = ((0, p - s) for p, s in zip(padded or self.size, self.size, strict=True))
        array = np.pad(self.pixels, (rows, columns, (0, 0)), mode="edge")
        return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


@cache
def network(
    head: str = "upsample",
    classes: int = 3,
    out_size: Size | None = None,
    input_size: Size | None = None,
    seed: int = 0,
) -> de.DenseModel:
    torch.manual_seed(seed)
    node = "layer1" if head != "deconv" else "layer2"
    model = de.DenseModel(
        "resnet18", weights=None, out_channels=classes, out_size=out_size, input_size=input_size, cut=node, head=head
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(torch.rand(2, 3, 64, 64))
        model.eval().head.logits.weight.mul_(4)
    return model


def ensemble_of(*members: de.DenseModel | ViewedMember, **options: object) -> de.Ensemble:
    named = {f"m{i}": member for i, member in enumerate(members)}
    return de.Ensemble(named, list(range(1, len(named) + 1)), **options).eval()  # type: ignore[arg-type]


def joined(rows: Iterator[Rows], name: str) -> Tensor:
    return torch.cat([part.planes[name] for part in rows], dim=-2)


@cache
def reach_of(member: de.DenseModel | ViewedMember) -> Reach | None:
    return measure_reaches(ensemble_of(member)).get("m0")


def reaches_of(ensemble: de.Ensemble) -> dict[str, Reach]:
    """Measured once for all tests."""
    result = {name: reach_of(member) for name, member in ensemble.named_members()}
    return {name: reach for name, reach in result.items() if reach is not None}


def streamed(
    ensemble: de.Ensemble,
    image: Image,
    tile: int = 64,
    overlap: float = 0.25,
    planes: tuple[str, ...] = ("mean",),
    batch: int = 1,
) -> Iterator[Rows]:
    return stream(ensemble, image, tile, overlap, planes, batch, reaches_of(ensemble))


def check(
    ensemble: de.Ensemble, image: Image, planes: tuple[str, ...], padded: Size | None = None, batch: int = 1
) -> None:
    """All planes of a stream against those of the whole image at once."""
    rows = list(streamed(ensemble, image, planes=planes, batch=batch))
    images = image.images(padded)
    pixels = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    whole = at_image_size(ensemble.predict_members(images), pixels, "whole", None, ensemble)
    assert [part.top for part in rows] == sorted({part.top for part in rows})
    for name in planes:
        result, wanted = joined(iter(rows), name), getattr(whole, name)[..., : image.size[0], : image.size[1]]
        assert result.shape == wanted.shape
        if result.dtype.is_floating_point:
            torch.testing.assert_close(result, wanted, atol=2e-5, rtol=0)
        else:
            assert float((result.long() != wanted.long()).float().mean()) < 1e-3, name  # ties that rounding decides
    assert all(part.planes.keys() == set(planes) for part in rows)


SEGMENTATION = ("mean", "label", "variance", "entropy", "expected_entropy", "mutual_information", "disagreement")


@pytest.mark.parametrize("size", [(192, 260), (256, 64)])
@pytest.mark.parametrize("batch", [1, 4])
def test_exact_members_give_the_map_of_the_whole_image(size: Size, batch: int) -> None:
    ensemble = ensemble_of(network("upsample"), network("skip", seed=1))
    reaches, image = reaches_of(ensemble), Image(size)
    assert len(reaches) == 2 and all(reach.halo is not None for reach in reaches.values())
    check(ensemble, image, SEGMENTATION, batch=batch)
    windows = plan_windows(ensemble, size, 64, 0.25, reaches)
    assert len(windows) > 1 and not windows.blended
    assert max(height for _, _, height, _ in image.reads) == windows.rows.window < size[0]
    assert len(image.reads) == len(windows) and threading.get_ident() not in image.readers


@pytest.mark.parametrize(
    ("size", "padded"), [((1, 1), None), ((3, 301), (3, 304)), ((190, 47), (192, 47)), ((30, 40), None)]
)
def test_images_of_any_size(size: Size, padded: Size | None) -> None:
    """Along an axis that is cut, the map is that of the image continued to a multiple of the stride."""
    check(ensemble_of(network()), Image(size), ("mean", "label"), padded)


def test_exact_members_stay_exact_under_blending() -> None:
    """Weights are 0 in the halo, and what is right in every window is right in their mean."""
    model, image = network(), Image((160, 200))
    reach = reach_of(model)
    assert reach is not None and reach.halo is not None
    halo = reach.halo
    windows = plan(image.size, 96, halo.pixels, halo.stride, 0.25)
    assert windows.blended and len(windows) > 3
    images = image.images()
    with torch.no_grad():
        whole = model(images)[0]
        parts = (
            {
                "mean": model(images[..., b.top : b.top + b.height, b.left : b.left + b.width])[0][
                    :, a.top - b.top : a.top - b.top + a.height, a.left - b.left : a.left - b.left + a.width
                ]
            }
            for a, b in zip(windows.output_boxes(), windows.input_boxes(), strict=True)
        )
        result = list(stitch(windows, parts, lambda planes: planes))
    torch.testing.assert_close(torch.cat([p["mean"] for _, p in result], 1), whole, atol=1e-4, rtol=0)


def blended_by_hand(ensemble: de.Ensemble, image: Image, windows: Windows) -> Tensor:
    """The mean map from full-size sums of map times Gaussian and of Gaussians."""
    images = image.images((windows.rows.padded, windows.columns.padded))
    top, total = torch.zeros(3, *images.shape[-2:]), torch.zeros(*images.shape[-2:])
    for i, start in enumerate(windows.rows.starts):
        for j, left in enumerate(windows.columns.starts):
            bells = []
            for axis, place in ((windows.rows, i), (windows.columns, j)):
                away = torch.arange(axis.window) - (axis.window - 1) / 2
                bell = torch.exp(-0.5 * (away / (axis.window / 8)) ** 2) if len(axis.starts) > 1 else torch.ones(())
                inside = torch.zeros(axis.window)
                first, end = axis.outputs[place]
                inside[first - axis.starts[place] : end - axis.starts[place]] = 1
                bells.append(bell * inside)
            weight = torch.outer(*bells)
            box = (..., slice(start, start + windows.rows.window), slice(left, left + windows.columns.window))
            top[box] += weight * ensemble.predict_members(images[box]).mean[0]
            total[box] += weight
    return (top / total)[:, : image.size[0], : image.size[1]]


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_inexact_members_are_blended_by_a_gaussian(overlap: float) -> None:
    ensemble, image = ensemble_of(network("aspp"), network("upsample")), Image((150, 130))
    reaches = reaches_of(ensemble)
    assert reaches["m0"].halo is None and reaches["m1"].halo is not None
    windows = plan_windows(ensemble, image.size, 96, overlap, reaches)
    assert windows.blended
    rows = list(streamed(ensemble, image, 96, overlap, ("mean", "label", "entropy"), batch=2))
    result = joined(iter(rows), "mean")
    torch.testing.assert_close(result, blended_by_hand(ensemble, image, windows), atol=1e-5, rtol=0)
    assert torch.equal(joined(iter(rows), "label").long(), result.argmax(0))


def test_windows_without_overlap_are_not_blended() -> None:
    ensemble, image = ensemble_of(network("aspp")), Image((128, 64))
    result = joined(streamed(ensemble, image, 64, 0.0), "mean")
    parts = [ensemble(image.images()[:, :, top : top + 64])[0] for top in (0, 64)]
    torch.testing.assert_close(result, torch.cat(parts, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("view", ["hflip", "vflip", "rot90", "rot180", "rot270"])
def test_views_of_exact_members_are_exact(view: str) -> None:
    check(ensemble_of(ViewedMember(network(), view)), Image((128, 164)), ("mean",))


def test_a_scaled_view_is_blended() -> None:
    ensemble = ensemble_of(ViewedMember(network(), "scale75"))
    reach = measure_reaches(ensemble)["m0"]
    assert reach.halo is None and "scale" in reach.why
    result = joined(streamed(ensemble, Image((128, 164)), tile=96), "mean")
    assert result.shape == (3, 128, 164) and torch.allclose(result.sum(0), torch.ones(128, 164), atol=1e-5)


@pytest.mark.parametrize("size", [(201, 150), (20, 17), (1, 1)])
def test_members_that_see_the_whole_image(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed maps are combined small and then upsample_box, as for any other image."""
    monkeypatch.setattr("densemble.inference.tiles.streaming.BLOCK", 70)
    monkeypatch.setattr("densemble.inference.tiles.resize_blocks.BLOCK", 70)
    members = (network("upsample", 3, (12, 16), (48, 64)), network("fpn", 3, (10, 10), (40, 40)))
    check(ensemble_of(*members, ViewedMember(members[0], "hflip")), Image(size), SEGMENTATION)


@pytest.mark.parametrize("view", ["hflip", "rot90", "scale75"])
@pytest.mark.parametrize("out_size", [None, (12, 16)])
def test_whole_images_seen_through_a_view(view: str, out_size: Size | None) -> None:
    member = network("upsample", 3, out_size, (48, 64))
    check(ensemble_of(ViewedMember(member, view)), Image((150, 90)), ("mean",))


def test_members_that_see_windows_and_members_that_see_the_whole_image() -> None:
    wholes = (network("upsample", 3, None, (48, 64)), network("upsample", 3, (12, 16), (48, 64), seed=2))
    ensemble = ensemble_of(network(), *wholes, temperatures={"m0": 1.5, "m1": 0.7})
    check(ensemble, Image((128, 164)), SEGMENTATION)
    check(ensemble_of(*wholes[:1]), Image((128, 164)), ("mean", "label"))


def test_calibration_temperatures_and_guarantee_apply() -> None:
    calibration = VectorScaling((1.5, 0.8, 1.2), (0.2, 0.0, -0.3), "categorical")
    options = {"calibration": calibration, "guarantee": ConformalSet(0.2, 0.1, 10), "temperatures": {"m0": 2.0}}
    ensemble = ensemble_of(network(), **options)
    check(ensemble, Image((128, 72)), ("mean", "label", "included"))
    plain = joined(streamed(ensemble_of(network()), Image((128, 72))), "mean")
    assert not torch.allclose(plain, joined(streamed(ensemble, Image((128, 72))), "mean"), atol=1e-2)


@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize(
    "guarantee", [ConformalSet(0.3, 0.1, 10), RiskControl(0.4, 0.1, 0.95, 60, "categorical")], ids=["set", "risk"]
)
def test_a_guarantee_is_applied_to_the_blended_map(guarantee: ConformalSet | RiskControl, overlap: float) -> None:
    """Not to each tile: sets that were blended or joined are those of no map that the thresholds were fitted on."""
    ensemble, image = ensemble_of(network("aspp"), guarantee=guarantee), Image((150, 200))
    windows = plan_windows(ensemble, image.size, 96, overlap, reaches_of(ensemble))
    assert windows.blended
    rows = list(streamed(ensemble, image, 96, overlap, ("mean", "included")))
    included = joined(iter(rows), "included")
    by_hand = guarantee.apply(blended_by_hand(ensemble, image, windows)[None])[0]
    assert included.dtype == torch.bool and 0.05 < float(by_hand.float().mean()) < 0.95
    assert float((included != by_hand).float().mean()) < 1e-3  # probabilities at the threshold, by rounding
    assert torch.equal(included, guarantee.apply(joined(iter(rows), "mean")[None])[0])


def test_intervals_are_those_of_the_blended_values() -> None:
    task = make_task({"name": "regression"})
    guarantee = ConformalInterval(0.75, None, 0.1, 40)
    ensemble = ensemble_of(network("aspp", 1), task=task, guarantee=guarantee)
    rows = list(streamed(ensemble, Image((150, 200)), 96, 0.5, ("mean", "lower", "upper")))
    mean, lower, upper = (joined(iter(rows), name) for name in ("mean", "lower", "upper"))
    torch.testing.assert_close(upper - mean, torch.full_like(mean, 0.75), atol=1e-4, rtol=0)
    torch.testing.assert_close(mean - lower, torch.full_like(mean, 0.75), atol=1e-4, rtol=0)


def test_densities_keep_their_sum() -> None:
    task = make_task({"name": "heatmap", "mode": "density", "classes": ["cell"]})
    ensemble, image = ensemble_of(network("upsample", 1, (12, 16), (48, 64)), task=task), Image((120, 160))
    check(ensemble, image, ("mean", "variance"))
    with pytest.raises(UsageError, match="densities"):
        streamed(ensemble_of(network("upsample", 1), task=task), image)


def test_bands_and_depth_are_read_as_in_training() -> None:
    plain = Image((128, 72))
    deep = Image((128, 72), channels=5)
    deep.pixels = np.zeros((128, 72, 5), np.uint16)
    deep.pixels[..., [4, 0, 2]] = plain.pixels.astype(np.uint16) * 10
    reading = {"bands": (4, 0, 2), "image_range": (0, 2550)}
    result = joined(streamed(ensemble_of(network(), reading=reading), deep), "mean")
    torch.testing.assert_close(result, joined(streamed(ensemble_of(network()), plain), "mean"))
    with pytest.raises(DataError, match="5 channels"):
        streamed(ensemble_of(network()), deep)


def test_unsupported_streams_are_refused() -> None:
    image = Image((300, 200))
    with pytest.raises(UsageError, match="compares all pixels"):
        streamed(ensemble_of(network("upsample", 1), combine="rank"), image)
    with pytest.raises(UsageError, match="out_size=None"):
        streamed(ensemble_of(network("upsample", 3, (12, 16))), image)
    with pytest.raises(UsageError, match=r"no plane 'lower'.*mean, variance, entropy"):
        streamed(ensemble_of(network()), image, planes=("lower",))
    with pytest.raises(UsageError, match="no planes"):
        streamed(ensemble_of(network()), image, planes=())
    with pytest.raises(UsageError, match="batch = 0"):
        streamed(ensemble_of(network()), image, batch=0)
    whole = joined(streamed(ensemble_of(network("upsample", 1, (12, 16), (48, 64)), combine="rank"), image), "mean")
    assert whole.shape == (1, 300, 200)


def test_a_member_that_fails_on_the_whole_image_is_named() -> None:
    broken = de.DenseModel("resnet18", weights=None, cut="layer1", input_size=(32, 32), out_size=(8, 8)).eval()
    with torch.no_grad():
        broken.head.logits.bias.fill_(torch.nan)
    with pytest.raises(ArtifactError, match=r"m0.*NaN"):
        list(streamed(ensemble_of(broken), Image((50, 50))))


def test_reading_fails_where_the_image_is_damaged_and_stops_when_left() -> None:
    class Damaged(Image):
        def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
            if top > 60:
                raise DataError("strip 7 is damaged")
            return super().read(top, left, height, width)

    image = Damaged((400, 64))
    rows = streamed(ensemble_of(network()), image)
    assert next(rows).top == 0
    with pytest.raises(DataError, match="strip 7"):
        list(rows)
    intact = Image((4000, 64))
    rows = streamed(ensemble_of(network()), intact)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(intact.reads) <= 4
    assert torch.is_grad_enabled()
