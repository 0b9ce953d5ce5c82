"""Validates OCSF documents, one in each line of the standard input, against the schema that `ocsf-json-schema` ships.

Prints every error with the number of its line, and ends with status 1 if there is one.
"""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

# Keys of the raw schema, for what the JSON schema made from it does not say.
RAW = {}
SCHEMAS = {}


def validator(version, class_uid, profiles):
    key = (version, class_uid, tuple(profiles))
    if key not in SCHEMAS:
        RAW.setdefault(version, get_ocsf_schema(version=version))
        schema = OcsfJsonSchemaEmbedded(RAW[version])
        name = schema.lookup_class_name_from_uid(class_uid) if class_uid else "base_event"
        described = schema.get_class_schema(name, list(profiles))
        Draft202012Validator.check_schema(described)
        SCHEMAS[key] = (name, Draft202012Validator(described))
    return SCHEMAS[key]


def captions(version, name, document):
    """Words beside numbers have to be those of the numbers."""
    raw = RAW[version]
    attributes = (raw["base_event"] if name == "base_event" else raw["classes"][name])["attributes"]
    for key, word in [
        ("activity_id", "activity_name"),
        ("severity_id", "severity"),
        ("status_id", "status"),
        ("action_id", "action"),
        ("disposition_id", "disposition"),
        ("category_uid", "category_name"),
        ("class_uid", "class_name"),
    ]:
        if key not in document or document[key] == 99:
            continue
        meanings = attributes[key].get("enum", {})
        caption = meanings.get(str(document[key]), {}).get("caption")
        if caption is not None and document.get(word) != caption:
            yield f"{word} is {document.get(word)!r}, and {key} {document[key]} means {caption!r}"
    if document["type_uid"] != document["class_uid"] * 100 + document["activity_id"]:
        yield "type_uid is not class_uid * 100 + activity_id"


def main():
    bad = total = 0
    for number, line in enumerate(sys.stdin, 1):
        total += 1
        document = json.loads(line)
        metadata = document["metadata"]
        version = metadata["version"]
        name, described = validator(version, document["class_uid"], metadata.get("profiles", []))
        errors = [f"{error.json_path}: {error.message[:300]}" for error in described.iter_errors(document)]
        errors.extend(captions(version, name, document))
        for error in errors:
            bad += 1
            print(f"{number} ({name}): {error}")
    print(f"{total} documents, {bad} errors")
    return 1 if bad or not total else 0


sys.exit(main())
