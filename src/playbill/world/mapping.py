"""The mapping with which `playbill prepare source=parquet` reads a written world as anybody's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from playbill.tables.schema import CONTRACT, Column, EventKind


def mapping_text(columns: Mapping[str, Sequence[Column]], events: Sequence[EventKind]) -> str:
    """Return the text of `mapping.yaml` for a folder of tables: every column by its own name.

    Args:
        columns: by table, as declared.
        events: the declared event names.
    """
    lines = ["# How `playbill prepare source=parquet source.folder=<this folder>` reads these tables."]
    for table, declared in columns.items():
        known = {c.name for c in CONTRACT[table]}
        plain = ", ".join(f"{c.name}: {c.name}" for c in declared if c.name in known)
        lines += [f"{table}:", f"  {table}:", f"    file: {table}.parquet", f"    columns: {{{plain}}}"]
        features = [c for c in declared if c.name not in known]
        if features:
            lines.append("    features:")
        for c in features:
            protected = ", protected: true" if c.protected else ""
            lines.append(f"      {c.name}: {{kind: {c.kind}, provenance: {c.provenance}{protected}}}")
    lines.append("event_names:")
    for event in events:
        parts = [f'meaning: "{event.meaning}"', f'unit: "{event.unit}"', f"utility: {event.utility:g}"]
        parts += [
            f"{name}: {bound:g}" for name, bound in (("low", event.low), ("high", event.high)) if bound is not None
        ]
        lines.append(f"  {event.name}: {{{', '.join(parts)}}}")
    return "\n".join(lines) + "\n"
