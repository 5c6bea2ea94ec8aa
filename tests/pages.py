"""Pages of HTML as the tests read them: tags, texts, and the data that view/page.py embeds."""

import json
from html.parser import HTMLParser

import numpy as np

from rnndet.inference.writers.view.page import unpack


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the content of scripts, styles and titles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.content: list[tuple[str, str]] = []  # tag or id, text
        self._name = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._name = attributes.get("id") or tag

    def handle_endtag(self, tag):
        self._name = ""

    def handle_data(self, data):
        self.content.append((self._name, data))

    def text(self, name: str) -> str:
        return "".join(text for key, text in self.content if key == name)

    @property
    def data(self) -> dict:
        return json.loads(self.text("data"))

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return unpack(self.data["columns"], self.text("columns"))
