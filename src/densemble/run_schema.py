"""JSON schema of run.yaml for editors, made from the models that validate the file."""

from typing import Any

from densemble.config import RunConfig, TrainingOptions
from densemble.nets.heads import HEADS
from densemble.tasks import TASKS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def run_schema() -> dict[str, Any]:
    """Return the JSON schema of run.yaml.

    A file that the schema refuses is refused by :func:`densemble.config.make_config`, too, except for numbers and
    switches that are written as text. The reverse does not hold: rules between two keys are not in the schema.
    """
    schema = RunConfig.model_json_schema()
    definitions = schema["$defs"]
    for model in definitions.values():
        model["description"] = model.get("description", "").splitlines()[0].replace("``", "")
    schema["properties"]["task"]["enum"] = list(TASKS)
    definitions["MemberConfig"] = _member_schema(definitions["MemberConfig"])
    return {"$schema": DIALECT, **schema, "title": "run.yaml", "description": "Settings of a training with densemble."}


def _member_schema(mapping: dict[str, Any]) -> dict[str, Any]:
    """Schema of a member: a mapping, in which unset training options may be null, or the name of a backbone."""
    properties = mapping["properties"]
    properties["head"]["examples"] = list(HEADS)
    for name in TrainingOptions.model_fields:
        shown = {key: value for key, value in properties[name].items() if key in ("title", "description")}
        values = {key: value for key, value in properties[name].items() if key not in (*shown, "default")}
        properties[name] = {**shown, "anyOf": [values, {"type": "null"}], "default": None}
    backbone = {"type": "string", "description": "Name of a backbone; NAME*3 stands for three copies."}
    return {"anyOf": [mapping, backbone], "description": mapping["description"]}
