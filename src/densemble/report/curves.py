"""Draw learning curves as a PNG file."""

from pathlib import Path

from densemble.storage.writing import atomic_binary, require_writable


def draw_curves(rows: list[dict[str, float]], title: str, path: Path) -> None:
    """Plot the loss and every validation metric over the epochs, one panel each.

    Args:
        rows: rows of a ``metrics.csv``, one per epoch.
        title: title of the figure.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    require_writable(path.parent)
    metrics = [key for key in rows[0] if key.startswith("val_") and key != "val_loss"]
    figure = Figure(figsize=(3.2 * (len(metrics) + 1), 3), layout="constrained")
    axes = figure.subplots(1, len(metrics) + 1, squeeze=False)[0]
    epochs = [row["epoch"] for row in rows]
    columns = {key: [row.get(key, float("nan")) for row in rows] for key in ("train_loss", "val_loss", *metrics)}
    for key, style in (("train_loss", "-"), ("val_loss", "--")):
        axes[0].plot(epochs, columns[key], style, marker=".", label=key.replace("_", " "))
    axes[0].set_title("loss")
    axes[0].legend()
    for axis, key in zip(axes[1:], metrics, strict=True):
        axis.plot(epochs, columns[key], marker=".", color="tab:green")
        axis.set_title(key.removeprefix("val_") + " (validation)")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    with atomic_binary(path) as file:
        figure.savefig(file, format="png", dpi=110)
