"""Named values of options, for help texts and shell completion, without the import of the libraries that define them.

A test compares them with the registries.
"""

from collections.abc import Callable, Sequence

TASKS = ("saliency", "segmentation", "multilabel", "regression", "depth", "heatmap", "image")
PRESETS = ("fast", "balanced", "best")
ENGINES = ("local",)
SPLITS = ("train", "val", "test")
SELECT = ("greedy", "all", "best", "exhaustive")
COMBINE = (
    "mean", "median", "logits", "trimmed", "vote", "class_weights", "stacking", "inverse_variance", "rank", "histogram",
)  # fmt: skip
CALIBRATE = ("auto", "none", "temperature", "vector", "variance")
GUARANTEE = ("none", "set", "risk", "interval")
BACKENDS = ("auto", "eager", "cudagraph", "inductor", "onnxruntime", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "int8")
SAVE = (
    "map", "overlay", "uncertainty", "npy", "guarantee", "coco", "coco-polygons", "geojson", "labelstudio", "cvat",
    "csv",
)  # fmt: skip
RANKINGS = ("entropy", "mutual_information", "disagreement", "variance")
FORMATS = ("onnx", "openvino", "torch", "python")
WEIGHTINGS = ("uncertain", "certain", "equal")
AUGMENT = ("none", "light", "strong")
SEARCHED = ("cut", "head", "learning_rate", "backbone_share", "augment")


def listed(names: Sequence[str], last: str = "or") -> str:
    """Return the names as ``a, b or c``."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else names[0]


def completed(names: Sequence[str], several: bool = False) -> Callable[[str], list[str]]:
    """Return the shell completion of an option.

    Args:
        names: the values.
        several: whether the option takes several names, separated by commas.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, start = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in names if name.startswith(start)]

    return complete


def complete_backbone(incomplete: str) -> list[str]:
    """Return the backbones that can be cut and whose names start with the text."""
    from densemble.storage.coverage import read_coverage

    return [entry["name"] for entry in read_coverage() if entry["ok"] and entry["name"].startswith(incomplete)]


def complete_members(incomplete: str) -> list[str]:
    """Return the completions of the last name of a list of backbones, separated by commas."""
    before, comma, start = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in complete_backbone(start)]
