"""Write docs/report.schema.json, the JSON Schema of report.json, from the records that report.json is made of.

python -m scripts.docs.report_schema     or `make report-schema`
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from eval.analysis.report_model import Report
from eval.analysis.summary import REPORT_SCHEMA_VERSION
from scripts.paths import ROOT

SCHEMA_PATH = ROOT / "docs" / "report.schema.json"


def report_schema() -> dict[str, Any]:
    """Of every record all fields, and no other; of a finding, a reason and an assumption its message too."""
    schema = TypeAdapter(Report).json_schema(mode="serialization")
    schema["properties"]["schema_version"] = {"const": REPORT_SCHEMA_VERSION}
    for record in [schema, *schema["$defs"].values()]:
        if properties := record.get("properties"):
            if "code" in properties:
                properties["message"] = {"description": "The sentence for people.", "type": "string"}
            record |= {"required": list(properties), "additionalProperties": False}
            for field in properties.values():
                field.pop("title", None)
                field.pop("default", None)
    return {"$schema": GenerateJsonSchema.schema_dialect} | schema


def main() -> None:
    SCHEMA_PATH.write_text(json.dumps(report_schema(), indent=1) + "\n", encoding="utf-8")
    print(SCHEMA_PATH.relative_to(ROOT))


if __name__ == "__main__":
    main()
