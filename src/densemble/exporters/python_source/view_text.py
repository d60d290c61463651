"""Text of a member on mirrored, turned or resized images."""

from densemble.ensemble.member_views import ViewedMember
from densemble.exporters.python_source.code import call, numbers
from densemble.exporters.python_source.member_text import refused
from densemble.nets.dense import DenseModel


def view_text(network: str, name: str, member: DenseModel | ViewedMember, indent: int) -> str:
    """Return the expression of a member's logits, of the variable ``images``.

    Args:
        network: expression of the network.
        name: name of the member.
        member: a network, or a view of one.
        indent: columns before the expression.

    Raises:
        UsageError: the view depends on the size of the image.
    """
    if isinstance(member, DenseModel):
        return f"{network}(images)"
    view = member.view
    images, maps = "images", f"{_resized(network, name, member, indent)}({{}})"
    if view.mirrored:
        images = f"images.flip({view.mirrored[0]})"
        return f"{maps.format(images)}.flip({view.mirrored[0]})"
    if view.turns:
        images = f"images.rot90({view.turns}, (-2, -1))"
        return f"{maps.format(images)}.rot90({-view.turns}, (-2, -1))"
    return maps.format(images)


def _resized(network: str, name: str, member: ViewedMember, indent: int) -> str:
    """Return the expression of the network for the sizes of the view."""
    spec, view = member.spec, member.view
    changed = {"out_size": spec.out_size and view.turned(spec.out_size)}
    if spec.rule.fixed is None:
        if spec.input_size is None and view.scale != 1:
            raise refused(f"member '{name}' resizes each image by a factor, which is not written")
        size = spec.input_size and view.scaled(view.turned(spec.input_size))
        changed["input_size"] = size and spec.rule.nearest(size)
    before = {"out_size": spec.out_size, "input_size": spec.input_size and spec.rule.nearest(spec.input_size)}
    arguments = [f"{key}={numbers(size)}" for key, size in changed.items() if size and size != before[key]]
    return call("with_sizes", [network, *arguments], indent) if arguments else network
