"""The page at `/docs`: the operations as OpenAPI tells them, without scripts, so that it works on a closed network.

Any OpenAPI viewer can be pointed at `/openapi.json` instead.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b2733; }
h2 { border-bottom: 1px solid #d5dde5; margin-top: 2.5rem; }
h3 code { background: none; padding: 0; } b { color: #0b6e4f; }
code, pre { font: 13px/1.45 ui-monospace, monospace; background: #f3f6f9; border-radius: 4px; }
code { padding: .1em .3em; } pre { padding: .8rem; overflow-x: auto; } summary { cursor: pointer; }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
"""


def render(schema: dict[str, Any]) -> str:
    """Give the page of a schema."""
    told = [f"<h1>{escape(schema['info']['title'])} {escape(schema['info']['version'])}</h1>"]
    told.append(_prose(schema["info"]["description"]))
    told.append('<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>')
    for tag in schema["tags"]:
        told.append(f"<h2>{escape(tag['name'])}</h2>{_prose(tag['description'])}")
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation.get("tags", ()):
                    told.append(_operation(method, path, operation))
    body = "\n".join(told)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>mdplatform</title><style>{_STYLE}</style>{body}'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    told = [f"<h3><b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}</h3>"]
    told.append(_prose(operation.get("description", "")))
    if operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(each['name'])}</code><td>{each['in']}<td>{_inline(each.get('description', ''))}"
            for each in operation["parameters"]
        )
        told.append(f"<table>{rows}</table>")
    sent = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
    for name, example in sent.items():
        told.append(_example(f"Send: {example.get('summary', name)}", example["value"]))
    for status, response in operation["responses"].items():
        examples = response.get("content", {}).get("application/json", {}).get("examples", {})
        told.append(f"<p><code>{status}</code> {_inline(response['description'])}</p>")
        told += [_example("Example", each["value"]) for each in examples.values()]
    return "\n".join(told)


def _example(title: str, value: object) -> str:
    text = escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"


def _prose(text: str) -> str:
    """Give paragraphs and lists of Markdown as HTML; it knows no more of it."""
    told = []
    for block in text.strip().split("\n\n"):
        if block.startswith("- "):
            items = block[2:].split("\n- ")
            told.append("<ul>" + "".join(f"<li>{_inline(each)}</li>" for each in items) + "</ul>")
        else:
            told.append(f"<p>{_inline(block)}</p>")
    return "".join(told)


def _inline(text: str) -> str:
    for mark, tag in (("`", "code"), ("**", "b")):
        pieces = (escape(text) if mark == "`" else text).split(mark)
        text = "".join(f"<{tag}>{each}</{tag}>" if index % 2 else each for index, each in enumerate(pieces))
    return text
