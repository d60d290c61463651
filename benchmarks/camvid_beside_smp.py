"""Compare our members and their ensemble with segmentation-models-pytorch's FPN, on CamVid at 360x480.

Backbone, images, augmentation, loss, optimizer, schedule, epochs and averaging are the same: the preset ``best``. Every
network is trained by the same code and scored at the size of the targets. Finished members are kept, so a second call
continues. Writes benchmarks/results/camvid_beside_smp.json. DATA is segmentation-camvid.

    python benchmarks/camvid_beside_smp.py DATA WEIGHTS_DIR -o RUNS --epochs 10 [--part ours|smp]
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import environment
from safetensors.torch import load_file
from torch import Tensor, nn

from densemble.data.decoded_cache import decode_split
from densemble.data.folder import FolderData
from densemble.engines.configure import open_data
from densemble.engines.plan import fit_settings, trained_task
from densemble.evaluation.scores import predict_split
from densemble.messages import shown
from densemble.nets.dense import DenseModel
from densemble.run import run_members
from densemble.storage.runs import MemberFolder
from densemble.training.fit import fit_member, seed_everything
from densemble.training.settings import MemberFit

RESULT = Path(__file__).parent / "results" / "camvid_beside_smp.json"
CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
SIZE = (360, 480)
MULTIPLE = 32
MEMBERS = ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1")
PEERS = ("FPN",)
BACKBONE = MEMBERS[0]


class Peer(nn.Module):
    """A network of segmentation-models-pytorch with the same normalization and pretrained backbone as our member.

    Its input size must be a multiple of 32: images are padded at the right and bottom, and maps are cropped.
    """

    def __init__(self, kind: str, like: DenseModel, weights: Path) -> None:
        import segmentation_models_pytorch as smp

        super().__init__()
        self.network = getattr(smp, kind)(f"tu-{BACKBONE.split('/')[-1]}", encoder_weights=None, classes=len(CLASSES))
        state = load_file(weights)
        missing, _ = self.network.encoder.model.load_state_dict(state, strict=False)
        assert not missing, f"the encoder of {kind} lacks weights: {missing[:5]}"
        self.backbone = self.network.encoder
        self.head = nn.ModuleList([self.network.decoder, self.network.segmentation_head])
        self.spec = like.spec
        self.register_buffer("mean", like.mean.clone())
        self.register_buffer("std", like.std.clone())

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        small = (images - self.mean) / self.std
        if (height, width) != SIZE:
            small = F.interpolate(small, size=SIZE, mode="bilinear", align_corners=False, antialias=True)
        pads = [-side % MULTIPLE for side in SIZE]
        logits: Tensor = self.network(F.pad(small, (0, pads[1], 0, pads[0])))[..., : SIZE[0], : SIZE[1]]
        return logits if (height, width) == SIZE else F.interpolate(logits, size=(height, width), mode="bilinear")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "task": "segmentation",
        "preset": "best",
        "input_size": list(SIZE),
        "weights_dir": str(arguments.weights_dir),
        "data": {"classes": CLASSES, "ignore_index": 11},
        "training": {"epochs": arguments.epochs, "batch_size": 8, "seed": 0},
        "members": list(MEMBERS),
    }


def train_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    out = arguments.out / "ours"
    data, config = open_data(arguments.data, settings(arguments))
    with shown(print):
        run = run_members(data, config, out, resume=(out / "run.yaml").is_file())
    rows = {
        name: {
            "val": record["val"],
            "parameters": record["parameters"],
            "seconds": record["seconds"],
            "best_epoch": record["best_epoch"],
            "data_share": record["data_share"],
        }
        for name, record in run.trained().items()
    }
    chosen = json.loads(run.folder.ensemble.read_text())
    return {"members": rows, "ensemble": chosen, "baselines": run.baselines()}


def train_peers(arguments: argparse.Namespace) -> dict[str, Any]:
    data, config = open_data(arguments.data, settings(arguments))
    cache = arguments.out / "smp" / "cache"
    splits = [decode_split(data, split, SIZE, cache) for split in ("train", "val")]
    task = trained_task(data.task, config, splits[0])
    rows = {}
    for kind in PEERS:
        folder = MemberFolder(arguments.out / "smp" / kind)
        done = folder.path / "scores.json"
        if not done.is_file():
            folder.path.mkdir(parents=True, exist_ok=True)
            rows[kind] = train_peer(kind, data, task, config, splits, folder, cache, arguments)
            done.write_text(json.dumps(rows[kind]))
        rows[kind] = json.loads(done.read_text())
    return rows


def train_peer(
    kind: str, data: FolderData, task: Any, config: Any, splits: Any, folder: MemberFolder, cache: Path, arguments: Any
) -> dict[str, Any]:
    own = fit_settings(config, config.members[0], None)
    seed_everything(own.seed)
    like = DenseModel(BACKBONE, out_channels=len(CLASSES), out_size=None, input_size=SIZE, weights=None)
    weights = arguments.weights_dir / f"timm-{BACKBONE.split('/')[-1]}.safetensors"
    peer = Peer(kind, like, weights)
    started = time.monotonic()
    fit = MemberFit(peer, task, own, *splits, SIZE, folder, f"smp {kind}", cache)  # type: ignore[arg-type]
    fitted = fit_member(fit)
    peer.load_state_dict(load_file(folder.weights))
    _, scores = predict_split(peer.float().eval(), task, data, "val", (180, 240))
    return {
        "val": scores,
        "parameters": sum(p.numel() for p in peer.parameters()),
        "seconds": round(time.monotonic() - started, 1),
        "best_epoch": int(fitted["best"]["epoch"]),
        "data_share": fitted["data_share"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights_dir", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--part", choices=["ours", "smp"], help="only this part; the result is written by both")
    arguments = parser.parse_args()
    ours = train_ours(arguments) if arguments.part in (None, "ours") else None
    peers = train_peers(arguments) if arguments.part in (None, "smp") else None
    if ours is None or peers is None:
        return
    facts = {
        "environment": environment("segmentation-models-pytorch", "lightning"),
        "size": list(SIZE),
        "epochs": arguments.epochs,
        "threads": torch.get_num_threads(),
    }
    RESULT.write_text(json.dumps({**facts, "ours": ours, "smp": peers}, indent=1) + "\n")
    for name, row in {**ours["members"], "ensemble": ours["ensemble"], **peers}.items():
        print(f"{name:28s} miou {row['val']['miou']:.4f}")


if __name__ == "__main__":
    main()
