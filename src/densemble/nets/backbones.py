"""The one door to torchvision's and timm's classifiers: names, networks, FX graphs, pretrained weights.

A backbone is named ``alexnet`` (torchvision), ``timm/NAME`` or ``timm/NAME.TAG`` (timm), ``resdeconv`` (ours), or
``package.module:function`` (yours: the function is called and returns a classifier).
"""

import contextlib
import difflib
import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from densemble.errors import UsageError, WeightsError
from densemble.nets import local_weights
from densemble.nets.in_place import copy_overwritten_outputs
from densemble.nets.normalization import Normalization
from densemble.nets.resdeconv import ResDeconv
from densemble.nets.vision_transformer import ResamplingTransformer
from densemble.shapes import Size

OWN: dict[str, type[nn.Module]] = {"resdeconv": ResDeconv}
PORTED = ("inception_v3", "googlenet")


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
    if plain in _all_names() or is_user_function(name):
        return
    near = difflib.get_close_matches(plain, _all_names(), n=3, cutoff=0.5)
    near = [f"timm/{name}"] if f"timm/{plain.split('.')[0]}" in _all_names() else near
    hint = f"did you mean {' or '.join(near)}?" if near else "see `densemble backbones`; your own is module:function"
    raise UsageError(f"no backbone is named '{name}'; {hint}")


def build_classifier(name: str, device: str = "cpu", in_channels: int = 3) -> nn.Module:
    """The whole network with random weights, in eval mode; ``device="meta"`` keeps no weights.

    It takes RGB whatever ``in_channels`` is; the number decides only whether InceptionV3 and GoogLeNet shift RGB from
    one normalization to another inside, which they cannot do to other channels.
    """
    require_name(name)
    try:
        return _build(name, device, in_channels)
    except NotImplementedError:
        # Some networks compute their widths with tensors (torchvision's RegNets): they need real ones to be built.
        return _build(name, "cpu", in_channels).to(device)


def _build(name: str, device: str, in_channels: int) -> nn.Module:
    with torch.device(device):
        if is_user_function(name):
            model = _call_user_function(name)
        elif name in OWN:
            model = OWN[name]()
        elif name.startswith("timm/"):
            model = _build_timm(name.removeprefix("timm/"))
        else:
            import torchvision

            # Both Inception networks were ported from TensorFlow: their pretrained weights expect inputs that the
            # network itself shifts from ImageNet's normalization. torchvision turns that on only with weights.
            shifted = {"init_weights": True, "transform_input": in_channels == 3} if name in PORTED else {}
            model = torchvision.models.get_model(name, weights=None, **shifted)
            if isinstance(model, torchvision.models.VisionTransformer):
                model = ResamplingTransformer(model)
    return model.eval()


def _build_timm(name: str) -> nn.Module:
    """A network of timm, told to take images of any size where it can be told."""
    import timm

    for options in ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False}, {}):
        with contextlib.suppress(TypeError):  # an option that this architecture does not have
            model: nn.Module = timm.create_model(name, pretrained=False, **options)
            return model
    raise UsageError(f"timm cannot build '{name}'; try it with timm.create_model('{name}')")


def is_user_function(name: str) -> bool:
    """Whether the name is ``package.module:function``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _call_user_function(name: str) -> nn.Module:
    module_name, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the user's module lies in the folder where densemble is called, as with python -m
    try:
        model = getattr(import_module(module_name), function)()
    except Exception as error:  # the user's own code may raise anything
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
    """Mean and standard deviation that the weights, or a network that says so itself, expect for so many channels."""
    if in_channels != 3 and name in PORTED:
        return Normalization((0.5,) * in_channels, (0.5,) * in_channels)
    return _normalization(name, weights, network).for_channels(in_channels)


def _normalization(name: str, weights: str | Path | None, network: nn.Module | None) -> Normalization:
    carried = Normalization.from_config(getattr(network, "pretrained_cfg", None))
    if name in OWN:
        return Normalization()
    if name.startswith("module:") or is_user_function(name):
        return carried or Normalization(assumed="those of ImageNet, for the network says nothing of it")
    if weights is None or isinstance(weights, Path) or local_weights.is_file_name(weights):
        default = _published_normalization(name, "DEFAULT")
        return default if weights is None else replace(default, assumed=f"those of {name}'s published weights")
    return _published_normalization(name, weights)


def _published_normalization(name: str, weights: str) -> Normalization:
    """That of a timm tag, a model of the hub, or torchvision's weights; where there are none such, of the default."""
    if weights.startswith(local_weights.HUB):
        found = Normalization.from_config(_hub_config(weights))
        unknown = f"those of {name}'s published weights, for the hub cannot be asked for {weights}'s"
    elif name.startswith("timm/"):
        found = Normalization.from_config(_timm_config(name, weights))
        unknown = f"those of {name}'s published weights, for timm knows no tag {weights}"
    else:
        import torchvision

        entries = torchvision.models.get_model_weights(name).__members__
        found = Normalization.from_config(entries[weights].transforms()) if weights in entries else None
        unknown = f"those of ImageNet, for torchvision knows no weights {weights} of {name}"
    if found is not None:
        return found
    return replace(
        _published_normalization(name, "DEFAULT") if weights != "DEFAULT" else Normalization(), assumed=unknown
    )


@cache
def _hub_config(weights: str) -> Any:
    """timm's configuration of a model of the hub; ``None`` where the hub cannot be asked."""
    import timm

    with contextlib.suppress(Exception):  # the hub's client raises a dozen unrelated classes
        return timm.models.load_model_config_from_hf(weights.removeprefix(local_weights.HUB))[0]
    return None


def own_size(name: str) -> Size:
    """(H, W) of the images that the network was made for."""
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
    except RuntimeError:  # the tag is not one of timm's
        return None


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


def _tracer(model: nn.Module) -> Any:
    """Calls the network with an image alone: what else its forward takes keeps its default."""
    from torchvision.models.feature_extraction import NodePathTracer

    tracer = NodePathTracer(**_tracer_arguments(model))
    name = next(iter(signature(model.forward).parameters), "x")

    def image_alone(root: Any, is_module: bool, concrete_args: Any = None) -> Any:
        return root, [tracer.root, tracer.create_proxy("placeholder", name, (), {})]

    tracer.create_args_for_root = image_alone  # a class of our own here could not be pickled with the graph
    return tracer


def trace(model: nn.Module) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    """The eval-mode graph of a network and the qualified name of every node, as torchvision names them.

    Raises:
        UsageError: the network decides on values while it runs, so that no graph exists.
    """
    tracer = _tracer(model)
    try:
        graph = tracer.trace(model.eval())
    except Exception as error:  # FX raises whatever the network's own Python raises on a proxy
        raise UsageError(
            f"{type(model).__name__} cannot be traced into a graph ({str(error).splitlines()[0]}); "
            "its forward must not branch on values or sizes, nor hold parts that torch.compile made, "
            "unless it returns its feature maps in a list or dictionary"
        ) from error
    return fx.GraphModule(tracer.root, graph), dict(tracer.node_to_qualname)


def truncate(model: nn.Module, nodes: Sequence[str]) -> fx.GraphModule:
    """The network up to ``nodes`` and no further, in training mode; it returns ``{node: tensor}``.

    As torchvision's ``create_feature_extractor``, but each graph is compiled when it is complete, not at every step.
    """
    from torchvision.models.feature_extraction import DualGraphModule

    train_graph, eval_graph = (_graph_to(model.train(training), nodes) for training in (True, False))
    # Takes from the model only what the graphs use, so all later modules are left behind.
    truncated: fx.GraphModule = DualGraphModule(model, train_graph, eval_graph, type(model).__name__)
    return truncated.train()


def _graph_to(model: nn.Module, nodes: Sequence[str]) -> fx.Graph:
    """The model's graph in its current mode, ending at ``nodes``."""
    tracer = _tracer(model)
    graph: fx.Graph = tracer.trace(model)
    graph.owning_module = model  # type: ignore[assignment]  # only asked which modules have an effect
    for node in reversed(graph.nodes):
        if node.op == "output":
            graph.erase_node(node)
    last: dict[str, fx.Node] = {}
    for wanted in nodes:
        below = f"{wanted}."
        inside = [n for n, name in tracer.node_to_qualname.items() if name == wanted or name.startswith(below)]
        last[wanted] = inside[-1]
    graph.output(last)
    # Assertions on sizes count as having an effect: what they look at stays in the graph, behind the cut too.
    for node in reversed(graph.nodes):
        if node.target is torch._assert:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    copy_overwritten_outputs(model, graph)
    return graph


def resolve(backbone: str, weights: str | Path | None) -> tuple[str, str | Path | None]:
    """The architecture of an ``hf-hub:`` id and where its weights are; other names as they are.

    Raises:
        UsageError: no such backbone.
        WeightsError: the hub cannot be asked.
    """
    if not backbone.startswith(local_weights.HUB):
        require_name(backbone)
        return backbone, weights
    import timm

    try:
        _, architecture, _ = timm.models.load_model_config_from_hf(backbone.removeprefix(local_weights.HUB))
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise WeightsError(
            f"cannot ask the hub what '{backbone}' is ({type(error).__name__}); name the architecture, "
            "as timm/NAME, and give its file as weights"
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
    """Puts pretrained weights into a truncated backbone.

    Args:
        network: a truncated classifier, its keys those of the whole one.
        name: the backbone's name.
        weights: ``"DEFAULT"``, a torchvision weights name, a timm tag, an ``hf-hub:`` id, a local file, or ``None`` for
            random weights. ``"DEFAULT"`` of a user's function: those that it returned.
        weights_dir: a folder looked into before any download: ``torchvision-NAME.safetensors`` /
            ``timm-NAME.safetensors`` (or ``.pth``); ``NAME.TAG`` where a tag is asked for.
        allow_partial: take weights that cover little, or hold more than the network knows.

    Returns:
        One line that says what was loaded from where.

    Raises:
        WeightsError: absent, unreadable, not downloadable, or not fitting the network.
    """
    if is_user_function(name) and weights == "DEFAULT":
        return f"the weights that {name} returned"
    if weights is None or (name in OWN and weights == "DEFAULT"):
        return "random weights"
    known = set(build_classifier(name, "meta").state_dict())
    if isinstance(weights, Path) or local_weights.is_file_name(weights):
        path: Path | None = Path(weights).expanduser()
    else:
        path = local_weights.find_local(_stems(name, weights), weights_dir)
    if path is not None:
        state, source = local_weights.read_state(path), str(path)
    else:
        state, source = _download(name, weights), f"{name} {weights}"
    return local_weights.load_checked(network, state, known, source, allow_partial)


def _stems(name: str, weights: str) -> list[str]:
    """File names, without ending, under which ``weights`` of ``name`` may lie in a weights folder."""
    stem = name.replace("/", "-") if name.startswith("timm/") else f"torchvision-{name}"
    if weights.startswith(local_weights.HUB):
        return [f"timm-{weights.removeprefix(local_weights.HUB).replace('/', '-')}"]
    return [stem, stem.split(".")[0]] if weights == "DEFAULT" else [f"{stem}.{weights}"]


def _download(name: str, weights: str | Path) -> dict[str, Tensor]:
    """Pretrained weights from where torchvision and timm publish them."""
    wanted = f"{_stems(name, str(weights))[0]}.pth"
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
            "or set weights to null to train from scratch: --set members.0.weights=null, in Python weights=None"
        ) from error


def _download_timm(name: str, weights: str) -> dict[str, Tensor]:
    import timm

    if weights.startswith(local_weights.HUB):
        return dict(timm.create_model(weights, pretrained=True).state_dict())
    if _timm_config(f"timm/{name}", weights) is None:
        known = ", ".join(one.partition(".")[2] for one in timm.list_pretrained(f"{name.split('.')[0]}.*"))
        raise WeightsError(f"timm/{name} has no pretrained weights with the tag '{weights}'; there are: {known}")
    return dict(timm.create_model(local_weights.tagged(name, weights), pretrained=True).state_dict())
