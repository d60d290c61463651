"""Data of the searchable table of backbones."""

from densemble.storage.coverage import read_coverage

STRIDES = ("1/4", "1/8", "1/16")


def backbone_rows() -> list[list[object]]:
    """Rows of the table of backbones: name, nodes, accepted sizes, parameters, MACs, and one list per stride.

    The list of a stride has the node, channels, size, share of parameters kept, and share of MACs saved; it is empty if
    no cut has that stride.
    """
    rows: list[list[object]] = []
    for entry in read_coverage():
        if not entry["ok"]:
            continue
        cuts = []
        for stride in STRIDES:
            cut = entry["cuts"].get(stride)
            kept = cut and round(cut["parameters"] / max(entry["parameters"], 1), 4)
            saved = cut and round(1 - cut["macs"] / max(entry["macs"], 1), 4)
            cuts.append([cut["node"], cut["channels"], cut["size"], kept, saved] if cut else [])
        rows.append([entry["name"], entry["nodes"], entry["sizes"], entry["parameters"], entry["macs"], *cuts])
    return rows
