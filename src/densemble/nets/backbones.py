"""Backbones of torchvision and timm: names, networks, FX graphs, pretrained weights.

A backbone is named ``alexnet`` (torchvision), ``timm/NAME`` or ``timm/NAME.TAG`` (timm), ``resdeconv`` (built in), or
``package.module:function`` (of the user: the function is called and returns a classifier).
"""

import contextlib
import fnmatch
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from densemble.errors import UsageError, WeightsError, did_you_mean
from densemble.nets import local_weights
from densemble.nets.in_place import copy_overwritten_outputs
from densemble.nets.normalization import Normalization
from densemble.nets.resdeconv import ResDeconv
from densemble.nets.vision_transformer import ResamplingTransformer
from densemble.shapes import Size
from densemble.user_code import import_name, is_user_function

OWN: dict[str, type[nn.Module]] = {"resdeconv": ResDeconv}
PORTED = ("inception_v3", "googlenet")


def _all_names() -> Iterator[str]:
    import torchvision

    yield from (*OWN, *torchvision.models.list_models(module=torchvision.models))
    import timm  # takes long; a search that ends above does not need it

    yield from (f"timm/{name}" for name in timm.list_models())


def backbones(pattern: str = "*") -> list[str]:
    """Names of the backbones that match a shell pattern (``res*``, ``timm/*lite*``), sorted."""
    return sorted(name for name in _all_names() if fnmatch.fnmatch(name, pattern))


def require_name(name: str) -> None:
    """Check that ``name`` is a backbone.

    Raises:
        UsageError: there is no such backbone; the message lists the nearest names.
    """
    plain = name.split(".")[0] if name.startswith("timm/") else name
    if is_user_function(name) or plain in _all_names():
        return
    prefixed = [f"timm/{name}"] if f"timm/{plain.split('.')[0]}" in _all_names() else None
    hint = did_you_mean(name, prefixed) if prefixed else did_you_mean(plain, _all_names(), most=3)
    hint = hint.rstrip() or "see `densemble backbones`, or give module:function"
    raise UsageError(f"no backbone is named '{name}'; {hint}")


def build_classifier(name: str, device: str = "cpu", in_channels: int = 3) -> nn.Module:
    """Build the whole network with random weights, in eval mode; on ``device="meta"`` it has no weights.

    It takes RGB images. ``in_channels`` decides only whether InceptionV3 and GoogLeNet convert their normalization.
    """
    require_name(name)
    try:
        return _build(name, device, in_channels)
    except NotImplementedError:
        # Some constructors compute widths with tensors (torchvision's RegNets), which fails on the meta device.
        return _build(name, "cpu", in_channels).to(device)


def _build(name: str, device: str, in_channels: int) -> nn.Module:
    with torch.device(device):
        if is_user_function(name):
            model = _call_user_function(name)
        elif name in OWN:
            model = OWN[name]()
        elif name.startswith("timm/"):
            model = _timm_network(name.removeprefix("timm/"))[0]
        else:
            import torchvision

            # Both Inception networks convert their input for TensorFlow weights; torchvision enables it with weights.
            shifted = {"init_weights": True, "transform_input": in_channels == 3} if name in PORTED else {}
            model = torchvision.models.get_model(name, weights=None, **shifted)
            if isinstance(model, torchvision.models.VisionTransformer):
                model = ResamplingTransformer(model)
    return model.eval()


def timm_options(name: str) -> dict[str, bool]:
    """Return the options of ``timm.create_model`` with which a network accepts images of any size."""
    with torch.device("meta"):
        return _timm_network(name)[1]


def _timm_network(name: str) -> tuple[nn.Module, dict[str, bool]]:
    """Build a timm network, with the options for images of any size if the architecture has them; return both."""
    import timm

    for options in ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False}, {}):
        with contextlib.suppress(TypeError):  # the architecture does not have the option
            return timm.create_model(name, pretrained=False, **options), options
    raise UsageError(f"timm cannot build '{name}'; try it with timm.create_model('{name}')")


def is_published(name: str) -> bool:
    """Whether the backbone is a built-in, torchvision or timm network, not a network or function of the user."""
    return not name.startswith("module:") and not is_user_function(name)


def _call_user_function(name: str) -> nn.Module:
    module_name, _, function = name.partition(":")
    try:
        model = import_name(name)()
    except Exception as error:  # code of the user may raise anything
        raise UsageError(
            f"backbone '{name}': calling {function}() of module {module_name} failed with {type(error).__name__}: "
            f"{error}; it must be importable from this folder and return a torch.nn.Module"
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"backbone '{name}' returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def normalization(
    name: str, in_channels: int = 3, weights: str | Path | None = "DEFAULT", network: nn.Module | None = None
) -> Normalization:
    """Normalization that the weights expect, or that the network declares, for images of ``in_channels``."""
    if in_channels != 3 and name in PORTED:
        return Normalization((0.5,) * in_channels, (0.5,) * in_channels)
    if name in OWN:
        result = Normalization()
    elif not is_published(name):
        declared = Normalization.from_config(getattr(network, "pretrained_cfg", None))
        result = declared or Normalization(assumed="those of ImageNet, because the network declares none")
    elif weights is None:
        result = _published_normalization(name, "DEFAULT")
    elif isinstance(weights, Path) or local_weights.is_file_name(weights):
        result = replace(_published_normalization(name, "DEFAULT"), assumed=f"those of {name}'s published weights")
    else:
        result = _published_normalization(name, weights)
    return result.for_channels(in_channels)


def _published_normalization(name: str, weights: str) -> Normalization:
    """Normalization of a timm tag, a hub model or torchvision weights; if they are unknown, that of the default."""
    if weights.startswith(local_weights.HUB):
        known = Normalization.from_config(_hub_config(weights))
        assumed = f"those of {name}'s published weights, because the hub gives no configuration of {weights}"
    elif name.startswith("timm/"):
        known = Normalization.from_config(_timm_config(name, weights))
        assumed = f"those of {name}'s published weights, because timm has no tag {weights}"
    else:
        import torchvision

        entries = torchvision.models.get_model_weights(name).__members__
        known = Normalization.from_config(entries[weights].transforms()) if weights in entries else None
        assumed = f"those of ImageNet, because torchvision has no weights {weights} of {name}"
    if known is not None:
        return known
    default = _published_normalization(name, "DEFAULT") if weights != "DEFAULT" else Normalization()
    return replace(default, assumed=assumed)


@cache
def _hub_config(weights: str) -> Any:
    """timm's configuration of a hub model; ``None`` if the request fails."""
    import timm

    with contextlib.suppress(Exception):  # the hub's client raises a dozen unrelated classes
        return timm.models.load_model_config_from_hf(weights.removeprefix(local_weights.HUB))[0]
    return None


def pretrained_size(name: str) -> Size:
    """(H, W) of the images that the network was designed for."""
    config = _timm_config(name)
    if config is None:
        return (299, 299) if name == "inception_v3" else (224, 224)
    return int(config.input_size[1]), int(config.input_size[2])


def _timm_config(name: str, tag: str = "DEFAULT") -> Any:
    """timm's configuration of an architecture's weights; ``None`` for other networks and unknown tags."""
    if not name.startswith("timm/"):
        return None
    import timm

    try:
        return timm.get_pretrained_cfg(local_weights.tagged(name, tag), allow_unregistered=True)
    except RuntimeError:  # timm has no such tag
        return None


def _tracer(model: nn.Module) -> Any:
    """A tracer that passes only an image; all other arguments of forward keep their defaults.

    timm marks modules and functions that FX must not trace into; torchvision marks none.
    """
    from torchvision.models.feature_extraction import NodePathTracer, _set_default_tracer_kwargs

    arguments: dict[str, Any] = _set_default_tracer_kwargs(None)
    if type(model).__module__.startswith("timm."):
        from timm.models import _features_fx

        for key, marked in (
            ("leaf_modules", _features_fx.get_notrace_modules()),
            ("autowrap_functions", _features_fx.get_notrace_functions()),
        ):
            arguments[key] = [*arguments.get(key, []), *marked]
    tracer = NodePathTracer(**arguments)
    name = next(iter(signature(model.forward).parameters), "x")

    def image_alone(root: Any, is_module: bool, concrete_args: Any = None) -> Any:
        return root, [tracer.root, tracer.create_proxy("placeholder", name, (), {})]

    tracer.create_args_for_root = image_alone  # a subclass defined here could not be pickled with the graph
    return tracer


def trace(model: nn.Module, training: bool = False) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    """The graph of a network in one mode and the qualified names of its nodes, as in torchvision.

    Raises:
        UsageError: the network cannot be traced, because its forward branches on values.
    """
    tracer = _tracer(model)
    try:
        graph = tracer.trace(model.train(training))
    except Exception as error:  # FX passes on any error that the code of the network raises on a proxy
        raise UsageError(
            f"{type(model).__name__} cannot be traced into a graph ({str(error).splitlines()[0]}); "
            "its forward must not branch on values or sizes and must not contain parts compiled by torch.compile, "
            "unless it returns its feature maps in a list or dictionary"
        ) from error
    return fx.GraphModule(tracer.root, graph), dict(tracer.node_to_qualname)


def truncate(model: nn.Module, nodes: Sequence[str]) -> fx.GraphModule:
    """Truncate a network after ``nodes``; the result is in training mode and returns ``{node: tensor}``.

    Like torchvision's ``create_feature_extractor``, but each graph is compiled once, when it is complete.
    """
    from torchvision.models.feature_extraction import DualGraphModule

    train_graph, eval_graph = (_graph_to(model.train(training), nodes) for training in (True, False))
    # DualGraphModule copies only the modules that the graphs use, so later modules are dropped.
    truncated: fx.GraphModule = DualGraphModule(model, train_graph, eval_graph, type(model).__name__)
    return truncated.train()


def _graph_to(model: nn.Module, nodes: Sequence[str]) -> fx.Graph:
    """The graph of the model in its current mode, truncated after ``nodes``."""
    tracer = _tracer(model)
    graph: fx.Graph = tracer.trace(model)
    graph.owning_module = model  # type: ignore[assignment]  # tells dead code elimination which modules are impure
    for node in reversed(graph.nodes):
        if node.op == "output":
            graph.erase_node(node)
    last: dict[str, fx.Node] = {}
    for requested in nodes:
        found = [n for n, name in tracer.node_to_qualname.items() if f"{name}.".startswith(f"{requested}.")]
        if not found:
            raise UsageError(f"{type(model).__name__} has no node '{requested}'; see `densemble cuts`")
        last[requested] = found[-1]
    graph.output(last)
    # Assertions on sizes count as side effects and would keep the nodes after the cut that they read.
    for node in reversed(graph.nodes):
        if node.target is torch._assert:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    copy_overwritten_outputs(model, graph)
    return graph


def resolve(backbone: str, weights: str | Path | None) -> tuple[str, str | Path | None]:
    """Resolve an ``hf-hub:`` id to (architecture, weights); return other names and weights unchanged.

    Raises:
        UsageError: there is no such backbone.
        WeightsError: the request to the hub failed.
    """
    if not backbone.startswith(local_weights.HUB):
        require_name(backbone)
        return backbone, weights
    import timm

    try:
        _, architecture, _ = timm.models.load_model_config_from_hf(backbone.removeprefix(local_weights.HUB))
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise WeightsError(
            f"cannot get the configuration of '{backbone}' from the hub ({type(error).__name__}); "
            "name the architecture as timm/NAME and give the file as weights"
        ) from error
    name = f"timm/{architecture}"
    require_name(name)
    return name, backbone if weights == "DEFAULT" else weights


def load_weights(
    network: nn.Module,
    name: str,
    weights: str | Path | None,
    weights_dir: str | Path | None = None,
    allow_partial: bool = False,
) -> str:
    """Load pretrained weights into a truncated backbone.

    Args:
        network: a truncated classifier with the keys of the whole classifier.
        name: name of the backbone.
        weights: ``"DEFAULT"``, a torchvision weights name, a timm tag, an ``hf-hub:`` id, a local file, or ``None`` for
            random weights. ``"DEFAULT"`` of a user's function: the weights that the function returned.
        weights_dir: folder that is searched before any download for ``torchvision-NAME.safetensors`` or
            ``timm-NAME.safetensors`` (or ``.pth``); with a tag, for ``NAME.TAG``.
        allow_partial: accept weights that lack many tensors or contain unknown ones.

    Returns:
        One line about what was loaded from where.

    Raises:
        WeightsError: the weights do not exist, cannot be read or downloaded, or do not fit the network.
    """
    read = _read_weights(name, weights, weights_dir)
    if read is None:
        return f"the weights that {name} returned" if is_user_function(name) and weights else "random weights"
    known = set(build_classifier(name, "meta").state_dict())
    return local_weights.load_checked(network, read[0], known, read[1], allow_partial)


def require_weights(backbone: str, weights: str | Path | None, weights_dir: str | Path | None = None) -> None:
    """Read or download pretrained weights, to raise the errors of :func:`load_weights` before a network is built."""
    _read_weights(*resolve(backbone, weights), weights_dir)


def _read_weights(
    name: str, weights: str | Path | None, weights_dir: str | Path | None
) -> tuple[dict[str, Tensor], str] | None:
    """Tensors of pretrained weights and where they come from; ``None`` for weights that are in no file."""
    if weights is None or (weights == "DEFAULT" and (name in OWN or is_user_function(name))):
        return None
    path = local_weights.named_file(weights) or local_weights.find_local(_stems(name, str(weights)), weights_dir)
    if path is None:
        return _download(name, weights), f"{name} {weights}"
    return local_weights.read_state(path), str(path)


def _stems(name: str, weights: str) -> list[str]:
    """File names, without extension, that ``weights`` of ``name`` may have in a weights folder."""
    stem = name.replace("/", "-") if name.startswith("timm/") else f"torchvision-{name}"
    if weights.startswith(local_weights.HUB):
        return [f"timm-{weights.removeprefix(local_weights.HUB).replace('/', '-')}"]
    return [stem, stem.split(".")[0]] if weights == "DEFAULT" else [f"{stem}.{weights}"]


def _download(name: str, weights: str | Path) -> dict[str, Tensor]:
    """Download pretrained weights from torchvision's or timm's server."""
    file_name = f"{_stems(name, str(weights))[0]}.pth"
    try:
        if name in OWN or is_user_function(name):
            raise WeightsError(
                f"'{name}' has no pretrained weights named '{weights}'; set weights to null: "
                "--set members.0.weights=null"
            )
        if name.startswith("timm/"):
            return _download_timm(name.removeprefix("timm/"), str(weights))
        import torchvision

        entry = torchvision.models.get_model_weights(name)[str(weights)]
        file_name = f"{_stems(name, str(weights))[0]}.pth (from {entry.url})"
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub prints to stdout, which may carry JSON
            state: dict[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state
    except WeightsError:
        raise
    except KeyError as error:
        names = ", ".join(member.name for member in torchvision.models.get_model_weights(name))
        raise WeightsError(f"{name} has no pretrained weights named '{weights}'; there are: {names}") from error
    except Exception as error:  # without a connection, the hub clients raise a dozen unrelated classes
        raise WeightsError(
            f"cannot download weights '{weights}' of {name} ({type(error).__name__}); put the file {file_name} into a "
            f"folder and name that folder with weights_dir or ${local_weights.WEIGHTS_DIR_VARIABLE}, "
            "or set weights to null to train from scratch: --set members.0.weights=null, in Python weights=None"
        ) from error


def _download_timm(name: str, weights: str) -> dict[str, Tensor]:
    import timm

    if weights.startswith(local_weights.HUB):
        return dict(timm.create_model(weights, pretrained=True).state_dict())
    if _timm_config(f"timm/{name}", weights) is None:
        known = ", ".join(entry.partition(".")[2] for entry in timm.list_pretrained(f"{name.split('.')[0]}.*"))
        raise WeightsError(f"timm/{name} has no pretrained weights with the tag '{weights}'; there are: {known}")
    return dict(timm.create_model(local_weights.tagged(name, weights), pretrained=True).state_dict())
