"""Reference of the Python API: one section per public name, filled from its docstring by mkdocstrings."""

import densemble

GROUPS = {
    "Train": ("train", "Run", "FolderData", "tune", "TuneResult", "distill", "Distilled", "DistillOptions"),
    "Predict": ("predict", "PredictOptions", "Prediction", "Ensemble", "evaluate"),
    "Networks": ("backbones", "cuts", "Cut", "DenseModel"),
    "Files": (
        "load", "save", "export", "ExportOptions", "from_pretrained", "save_pretrained", "push_to_hub",
    ),
    "Errors": ("DensembleError",),
}  # fmt: skip
"""Public names by what they are used for; a name in no group is listed under "More"."""


def page() -> str:
    """Markdown of reference/api.md."""
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "More": tuple(name for name in densemble.__all__ if name not in grouped)}
    lines = ["# Python API", "", "```python", "import densemble as de", "```", ""]
    for title, names in groups.items():
        if names:
            lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: densemble.{name}", "    options: {heading_level: 3}", ""]
    return "\n".join(lines)
