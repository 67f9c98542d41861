"""What a timeline shows, read from the file by expat alone, for tests: ours is written by ElementTree."""

from __future__ import annotations

import xml.parsers.expat
from dataclasses import dataclass, field


@dataclass
class Element:
    """One element with its parents' names."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    parents: list[str] = field(default_factory=list)

    def number(self, name: str) -> float:
        return float(self.attributes[name])

    @property
    def end_ms(self) -> float:
        return self.number("data-start-ms") + self.number("data-duration-ms")


@dataclass
class Shown:
    """The panels of a drawing and all elements; well-formed, or there is none.

    :ivar panels: for each panel its elements, in order.
    """

    elements: list[Element] = field(default_factory=list)
    panels: list[list[Element]] = field(default_factory=list)

    def of_class(self, name: str, panel: int | None = None) -> list[Element]:
        among = self.elements if panel is None else self.panels[panel]
        return [one for one in among if one.attributes.get("class") == name]

    def texts(self, tag: str = "text") -> list[str]:
        return [one.text.strip() for one in self.elements if one.tag == tag]


def read(text: str) -> Shown:
    """Return what *text*, SVG or a page, shows."""
    shown, open_elements = Shown(), []

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parents=[one.tag for one in open_elements])
        shown.elements.append(element)
        open_elements.append(element)
        if attributes.get("class") == "panel":
            shown.panels.append([])
        if shown.panels:
            shown.panels[-1].append(element)

    def characters(data: str) -> None:
        open_elements[-1].text += data

    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = characters
    parser.Parse(text.encode(), True)
    return shown


def assert_self_contained(text: str) -> None:
    """Nothing runs and nothing is fetched."""
    for element in read(text).elements:
        assert element.tag not in {"script", "image", "iframe", "link", "object", "use", "foreignObject", "a"}
        for name, value in element.attributes.items():
            assert not name.startswith("on") and name not in {"href", "src", "xlink:href"}, (name, value)
            assert "url(" not in value and (name == "xmlns" or "//" not in value), (name, value)
        assert element.tag != "style" or not {"@import", "url("} & set(element.text.split())
