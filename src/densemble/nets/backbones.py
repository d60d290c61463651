"""The one door to torchvision's and timm's classifiers: names, networks, FX graphs, pretrained weights.

A backbone is named ``alexnet`` (torchvision), ``timm/NAME`` or ``timm/NAME.TAG`` (timm), or ``resdeconv`` (ours);
any ``nn.Module`` that maps an image to features may stand in for a name.
"""

import contextlib
import difflib
import fnmatch
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from densemble.errors import UsageError, WeightsError
from densemble.nets import weights as local_weights
from densemble.nets.resdeconv import ResDeconv

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
OWN: dict[str, type[nn.Module]] = {"resdeconv": ResDeconv}


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation for RGB in [0, 1], as the backbone was pretrained with."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@cache
def _all_names() -> tuple[str, ...]:
    import timm
    import torchvision

    torchvision_names = torchvision.models.list_models(module=torchvision.models)
    return (*OWN, *torchvision_names, *(f"timm/{name}" for name in timm.list_models()))


def backbones(pattern: str = "*") -> list[str]:
    """Names of the backbones that match a shell pattern (``res*``, ``timm/*lite*``), in alphabetical order."""
    return sorted(name for name in _all_names() if fnmatch.fnmatch(name, pattern))


def require_name(name: str) -> None:
    """Checks that ``name`` is a backbone.

    Raises:
        UsageError: it is not; the nearest names are given.
    """
    plain = name.split(".")[0] if name.startswith("timm/") else name
    if plain in _all_names():
        return
    near = difflib.get_close_matches(plain, _all_names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `densemble backbones`"
    raise UsageError(f"no backbone is named '{name}'; {hint}")


def build_classifier(name: str, device: str = "cpu") -> nn.Module:
    """The whole network with random weights, in eval mode; ``device="meta"`` keeps no weights."""
    require_name(name)
    try:
        return _build(name, device)
    except NotImplementedError:
        # Some networks compute their widths with tensors (torchvision's RegNets): they need real ones to be built.
        return _build(name, "cpu").to(device)


def _build(name: str, device: str) -> nn.Module:
    with torch.device(device):
        if name in OWN:
            model = OWN[name]()
        elif name.startswith("timm/"):
            import timm

            model = timm.create_model(name.removeprefix("timm/"), pretrained=False)
            if getattr(model, "output_fmt", "NCHW") not in ("NCHW", "Format.NCHW"):
                raise UsageError(f"'{name}' computes with channels last inside; it cannot be cut yet: take another one")
        else:
            import torchvision

            # Both Inception networks were ported from TensorFlow: their pretrained weights expect inputs that the
            # network itself shifts from ImageNet's normalization. torchvision turns that on only with weights.
            ported = {"init_weights": True, "transform_input": True} if name in ("inception_v3", "googlenet") else {}
            model = torchvision.models.get_model(name, weights=None, **ported)
    return model.eval()


def normalization(name: str) -> Normalization:
    """Mean and standard deviation that the backbone's pretrained weights expect."""
    if not name.startswith("timm/"):
        return Normalization()
    import timm

    config = timm.get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    return Normalization(tuple(config.mean), tuple(config.std)) if config is not None else Normalization()


def _tracer_arguments(model: nn.Module) -> dict[str, Any]:
    """timm marks modules and functions that FX must take as one piece; torchvision's own need nothing."""
    from torchvision.models.feature_extraction import _set_default_tracer_kwargs

    arguments: dict[str, Any] = _set_default_tracer_kwargs(None)
    if type(model).__module__.startswith("timm."):
        from timm.models import _features_fx

        arguments["leaf_modules"] = [*arguments["leaf_modules"], *_features_fx.get_notrace_modules()]
        arguments["autowrap_functions"] = [
            *arguments.get("autowrap_functions", []),
            *_features_fx.get_notrace_functions(),
        ]
    return arguments


def trace(model: nn.Module) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    """The eval-mode graph of a network and the qualified name of every node, as torchvision names them.

    Raises:
        UsageError: the network decides on values while it runs, so that no graph exists.
    """
    from torchvision.models.feature_extraction import NodePathTracer

    tracer = NodePathTracer(**_tracer_arguments(model))
    try:
        graph = tracer.trace(model.eval())
    except Exception as error:  # FX raises whatever the network's own Python raises on a proxy
        raise UsageError(
            f"{type(model).__name__} cannot be traced into a graph ({str(error).splitlines()[0]}); "
            "its forward must not branch on values or sizes"
        ) from error
    return fx.GraphModule(tracer.root, graph), dict(tracer.node_to_qualname)


def truncate(model: nn.Module, node: str) -> nn.Module:
    """The network up to ``node`` and no further; modules after it are dropped. Returns ``{node: (B, C, H, W)}``."""
    from torchvision.models.feature_extraction import create_feature_extractor

    extractor: nn.Module = create_feature_extractor(
        model, [node], tracer_kwargs=_tracer_arguments(model), suppress_diff_warning=True
    )
    return extractor


def load_weights(
    network: nn.Module, name: str, weights: str | Path | None, weights_dir: str | Path | None = None
) -> str:
    """Puts pretrained weights into a truncated backbone.

    Args:
        network: what :func:`truncate` returned.
        name: the backbone's name.
        weights: ``"DEFAULT"``, a torchvision weights name, a timm tag, a local file, or ``None`` for random weights.
        weights_dir: a folder looked into before any download: ``torchvision-NAME.safetensors`` /
            ``timm-NAME.safetensors`` (or ``.pth``); ``NAME.TAG`` where a tag is asked for.

    Returns:
        One line that says what was loaded from where.

    Raises:
        WeightsError: absent, unreadable, not downloadable, or not fitting the network.
    """
    if weights is None or (name in OWN and weights == "DEFAULT"):
        return "random weights"
    known = set(build_classifier(name, "meta").state_dict())
    if isinstance(weights, Path) or local_weights.is_file_name(weights):
        path: Path | None = Path(weights).expanduser()
    else:
        path = local_weights.find_local(_stems(name, weights), weights_dir)
    if path is not None:
        return local_weights.load_checked(network, local_weights.read_state(path), known, str(path))
    return local_weights.load_checked(network, _download(name, weights), known, f"{name} {weights}")


def _stems(name: str, weights: str) -> list[str]:
    """File names, without ending, under which ``weights`` of ``name`` may lie in a weights folder."""
    stem = name.replace("/", "-") if name.startswith("timm/") else f"torchvision-{name}"
    return [stem, stem.split(".")[0]] if weights == "DEFAULT" else [f"{stem}.{weights}"]


def _download(name: str, weights: str | Path) -> dict[str, Tensor]:
    """Pretrained weights from where torchvision and timm publish them."""
    wanted = f"{_stems(name, str(weights))[0]}.pth"
    try:
        if name in OWN:
            raise WeightsError(f"'{name}' has no pretrained weights named '{weights}'; set weights to null")
        if name.startswith("timm/"):
            import timm

            plain = name.removeprefix("timm/")
            tagged = plain if str(weights) == "DEFAULT" else f"{plain.split('.')[0]}.{weights}"
            return dict(timm.create_model(tagged, pretrained=True).state_dict())
        import torchvision

        entry = torchvision.models.get_model_weights(name)[str(weights)]
        wanted = f"{_stems(name, str(weights))[0]}.pth (from {entry.url})"
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub announces a download on stdout, where JSON may stand
            state: dict[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state
    except WeightsError:
        raise
    except KeyError as error:
        names = ", ".join(member.name for member in torchvision.models.get_model_weights(name))
        raise WeightsError(f"{name} has no pretrained weights named '{weights}'; there are: {names}") from error
    except Exception as error:  # the hubs' clients raise a dozen unrelated classes when there is no way out
        raise WeightsError(
            f"cannot download weights '{weights}' of {name} ({type(error).__name__}); put the file {wanted} into a "
            f"folder and name that folder with weights_dir or ${local_weights.WEIGHTS_DIR_VARIABLE}, "
            "or set weights to null to train from scratch"
        ) from error
